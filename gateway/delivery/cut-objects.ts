/** The objects of one cut: made from the log, and at the place where they go. */
import { isDeepStrictEqual } from "node:util";
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import type { Log } from "../../runtime/log.ts";
import type { Streams } from "../streams/streams.ts";
import type { Built, CutManifest } from "./cut-manifest.ts";
import type { Attempt, Destination } from "./destinations/destination.ts";
import { LineWriter } from "./ndjson.ts";
import { readRanges } from "./range-reader.ts";

/** The same bytes as often as it is done, on whatever gateway, as long as the log holds the same. */
export async function buildCut(
  streams: Streams,
  stream: string,
  ranges: CutManifest["ranges"],
): Promise<Built> {
  const writer = new LineWriter();
  const trimmedRecords = await readRanges(streams, stream, ranges, writer);
  const lines = await writer.finish();
  return {
    object: lines.delivered,
    errorObject: lines.failed,
    records: lines.deliveredRecords,
    failedRecords: lines.failedRecords,
    trimmedRecords,
  };
}

export interface CutObjectsParts {
  readonly config: DeliveryConfig;
  readonly log: Log;
  readonly openDestination: (config: DeliveryConfig["destination"]) => Destination;
}

export class CutObjects {
  readonly #parts: CutObjectsParts;
  readonly #destination: Destination;

  constructor(parts: CutObjectsParts) {
    this.#parts = parts;
    this.#destination = parts.openDestination(parts.config.destination);
  }

  /** Of the place that the config names. */
  get description(): string {
    return this.#destination.description;
  }

  async areThere(manifest: CutManifest): Promise<boolean> {
    const { records, failedRecords, object, errorObject } = manifest;
    const destination = this.#destinationOf(manifest);
    if (failedRecords > 0 && !(await destination.has(errorObject))) return false;
    return records === 0 || (await destination.has(object));
  }

  /**
   * Who holds the lease takes the attempt of the one before him its chance, however long that one was paused. Look what
   * is there after it, not before.
   */
  async revoke(manifest: CutManifest): Promise<void> {
    const destination = this.#destinationOf(manifest);
    for (const name of [manifest.errorObject, manifest.object])
      await destination.revoke(name, manifest.attempt);
  }

  /** May be repeated after a crash: what is there is kept. */
  async bring(manifest: CutManifest, built: Built, confirm: () => Promise<void>): Promise<void> {
    const destination = this.#destinationOf(manifest);
    const attempt: Attempt = { id: manifest.attempt ?? "", confirm };
    if (built.errorObject !== undefined) {
      await destination.put(manifest.errorObject, built.errorObject, attempt);
    }
    if (built.object !== undefined) await destination.put(manifest.object, built.object, attempt);
  }

  /** A cut goes to where it was going when its manifest was made: part of it may be there already. */
  #destinationOf(manifest: CutManifest): Destination {
    const { config, log, openDestination } = this.#parts;
    const then = manifest.destination;
    if (then === undefined || isDeepStrictEqual(then, config.destination)) return this.#destination;
    const destination = openDestination(then);
    log.warn(
      { cut: manifest.cut, object: manifest.object, destination: destination.description },
      "the config names another destination now; the cut under way is finished where it began",
    );
    return destination;
  }
}
