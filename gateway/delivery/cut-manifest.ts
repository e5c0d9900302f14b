/** What a cut is: all that its objects' names and bytes follow from, as it is written down before they are made. */
import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { Offset, ShardId } from "../streams/streams.ts";

/** 2 names the destination; one of version 1 goes where the config says now. 3 has a checksum. 4 names the attempt. */
export const MANIFEST_VERSION = 4;

const count = z.number().int().min(0);

export const manifestSchema = z.strictObject({
  formatVersion: z.literal([1, 2, 3, MANIFEST_VERSION]),
  cut: count,
  streamId: z.string(),
  /** Where the object goes, also when the config names another place by now. */
  destination: z
    .strictObject({ type: z.literal("files"), path: z.string(), compression: z.literal("gzip") })
    .optional(),
  /** In the order in which the shards stand in the object. `to` is not included. */
  ranges: z.array(z.strictObject({ shardId: z.string(), from: count, to: count })),
  object: z.string(),
  errorObject: z.string(),
  /**
   * Random, part of the name under which an object's bytes are written first: who takes the cut over removes that file,
   * and with it the last chance of this attempt.
   */
  attempt: z
    .string()
    .regex(/^[0-9a-f]{8}$/)
    .optional(),
  firstArrivalMs: count,
  createdMs: count,
  /** What the object was going to hold; its bytes are made again from the ranges. */
  records: count,
  failedRecords: count,
  bytes: count,
  /** Records that retention took before the object could be built; none unless given. */
  trimmedRecords: count.optional(),
});

/** Everything that an object's name and bytes follow from. Durable before the object. */
export type CutManifest = z.infer<typeof manifestSchema>;

/** The objects of a cut, made again from its ranges as often as it is tried. */
export interface Built {
  readonly object: Uint8Array | undefined;
  readonly errorObject: Uint8Array | undefined;
  readonly records: number;
  readonly failedRecords: number;
  readonly trimmedRecords: number;
}

/** `2026/11/21/09/<delivery>-<id>-<cut>`: the folder from the first record's arrival, in UTC. */
export function objectName(delivery: string, id: string, cut: number, firstArrivalMs: number): string {
  const hour = new Date(firstArrivalMs).toISOString().slice(0, 13).replaceAll("-", "/").replace("T", "/");
  return `${hour}/${delivery}-${id}-${String(cut).padStart(12, "0")}.ndjson.gz`;
}

/** The first attempt at a new cut, or another one at a cut that was under way. */
export function newAttempt(facts: Omit<CutManifest, "formatVersion" | "attempt">): CutManifest {
  const version = { formatVersion: MANIFEST_VERSION } as const;
  // In front, as a file without a checksum tells by its first digits that it may.
  return { ...version, ...facts, ...version, attempt: randomBytes(4).toString("hex") };
}

/** Where a cut ends in each of its shards. */
export function endsOf({ ranges }: Pick<CutManifest, "ranges">): Map<ShardId, Offset> {
  return new Map(ranges.map(({ shardId, to }) => [shardId, to]));
}

/** What was to be in the objects and can no longer be read: retention took it, or the log lost it. */
export function lostOf(manifest: CutManifest, built: Built) {
  const { records, failedRecords, trimmedRecords = 0 } = manifest;
  const lost = records + failedRecords + trimmedRecords - built.records - built.failedRecords;
  return lost > 0 && { trimmedRecords: lost };
}

/** What a manifest says of its objects. */
export function factsOf({ object, records, failedRecords, trimmedRecords }: Built) {
  return {
    records,
    failedRecords,
    bytes: object?.length ?? 0,
    ...(trimmedRecords > 0 && { trimmedRecords }),
  };
}
