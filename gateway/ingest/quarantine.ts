/**
 * Where invalid publishes are kept, so that they can be looked at and do not come again: NDJSON,
 * two files of at most `maxBytes` each, the older one dropped when the newer is full.
 */
import { type FileHandle, mkdir, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../runtime/durable.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { QuarantineStatus } from "./ingest.ts";

export interface QuarantinedPublish {
  readonly timeUs: number;
  readonly client: string;
  readonly topic: string;
  readonly reason: string;
  readonly payload: Uint8Array;
}

export class Quarantine {
  readonly #dir: string;
  readonly #maxBytes: number;
  readonly #log: Log;
  readonly #counter;
  #file: FileHandle | undefined;
  #bytes = 0;
  #olderBytes = 0;
  #publishes = 0;
  #lastReason: string | undefined;
  /** Writes follow one another; group commit is not worth it here. */
  #queue: Promise<void> = Promise.resolve();

  constructor(dir: string, log: Log, metrics: Metrics, maxBytes = 32 * 1_048_576) {
    this.#dir = dir;
    this.#log = log;
    this.#maxBytes = maxBytes;
    this.#counter = metrics.counter(
      "headwater_ingest_quarantined_total",
      "Publishes that were kept aside as invalid",
    );
  }

  async start(): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    this.#olderBytes = (await stat(this.#path("older")).catch(() => undefined))?.size ?? 0;
    await this.#open("a");
  }

  /** Resolves when the publish is on disk, so that it may be acknowledged. */
  keep(publish: QuarantinedPublish): Promise<void> {
    const kept = this.#queue.then(() => this.#write(publish));
    this.#queue = kept.catch(() => {});
    return kept;
  }

  status(): QuarantineStatus {
    return {
      publishes: this.#publishes,
      keptBytes: this.#bytes + this.#olderBytes,
      ...(this.#lastReason !== undefined && { lastReason: this.#lastReason }),
    };
  }

  async close(): Promise<void> {
    await this.#queue;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #write(publish: QuarantinedPublish): Promise<void> {
    const { client, topic, reason, payload } = publish;
    const line = `${JSON.stringify({
      time: new Date(publish.timeUs / 1000).toISOString(),
      client,
      topic: topic.slice(0, 1024),
      reason,
      payload: Buffer.from(payload).toString("base64"),
    })}\n`;
    if (this.#bytes > 0 && this.#bytes + line.length > this.#maxBytes) await this.#rotate();
    const file = this.#file;
    if (file === undefined) throw new Error("the quarantine is closed");
    await file.write(line);
    await file.datasync();
    this.#bytes += Buffer.byteLength(line);
    this.#publishes++;
    this.#lastReason = reason;
    this.#counter.inc();
    this.#log.warn(
      { client, topic: topic.slice(0, 200), reason, bytes: payload.length },
      "publish quarantined",
    );
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    // A crash here leaves only the older file; the next start makes a new one.
    await rename(this.#path("newer"), this.#path("older"));
    this.#olderBytes = this.#bytes;
    await this.#open("w");
  }

  async #open(flags: "a" | "w"): Promise<void> {
    this.#file = await open(this.#path("newer"), flags, 0o600);
    this.#bytes = (await this.#file.stat()).size;
    await syncFolder(this.#dir);
  }

  #path(age: "newer" | "older"): string {
    return join(this.#dir, age === "newer" ? "publishes.ndjson" : "publishes.1.ndjson");
  }
}
