/** Frames to put into streams, and all that a shard holds read back. */
import assert from "node:assert/strict";
import type { PlainPublish, PublishColumns, Streams } from "../../gateway/streams/streams.ts";
import { decodeFrame, encodeFrame, type Frame } from "../../protocol/frame.ts";
import { encodeBatch, forEachRecord } from "../../protocol/record-batch.ts";
import type { Clock } from "../../runtime/clock.ts";

/** By the system's clock unless told. */
export type OpenStreams = (more?: { readonly clock: Clock }) => Promise<Streams>;

/** Declares a test whose `body` gets a fresh store; `reopen` closes and opens it again. */
export type Fact = (what: string, body: (streams: Streams, reopen: OpenStreams) => Promise<void>) => void;

export interface ReadRecord {
  readonly offset: number;
  readonly key: string;
  readonly text: string;
  readonly arrivalMs: number;
}

/** A frame with one record for each text; all under `key` unless the text says `key=text`. */
export function makeFrame(stream: string, sequence: bigint, texts: readonly string[], epoch = 7n): Frame {
  const records = texts.map((text, i) => ({
    key: text.includes("=") ? text.split("=")[0]! : "key",
    timeUs: 1_700_000_000_000_000 + i,
    payload: Buffer.from(text),
  }));
  const head = {
    device: "pi-1",
    stream,
    epoch,
    epochStart: 1,
    sequence,
    storedUs: 1_700_000_000_000_000,
    recordCount: texts.length,
    timeSource: "system" as const,
  };
  return decodeFrame(encodeFrame(head, encodeBatch(records)));
}

/** They share the time of the first. */
export function publishColumns(list: readonly PlainPublish[]): PublishColumns {
  let end = 0;
  return {
    count: list.length,
    clientIds: list.map(({ clientId }) => clientId),
    packetIds: list.map(({ packetId }) => packetId),
    partitionKeys: list.map(({ partitionKey }) => partitionKey),
    mayRepeat: list.map(({ mayRepeat }) => mayRepeat),
    timeUs: list[0]?.timeUs ?? 0,
    data: Buffer.concat(list.map(({ payload }) => payload)),
    ends: Uint32Array.from(list, ({ payload }) => {
      end += payload.length;
      return end;
    }),
  };
}

/** All records of a shard from `from` on, read in steps of `maxBytes`. */
export async function readAll(
  streams: Streams,
  name: string,
  shardId: string,
  from = 0,
  maxBytes = 100_000,
): Promise<ReadRecord[]> {
  const records: ReadRecord[] = [];
  for (let at = from; ; ) {
    const { parts, next } = await streams.read(name, shardId, at, maxBytes);
    if (parts.length === 0) return records;
    for (const part of parts) {
      let offset = part.first;
      for (const run of part.runs) {
        forEachRecord(run, (payload) => {
          const { arrivalMs } = part;
          if (offset >= at) records.push({ offset, key: run.key, text: payload.toString(), arrivalMs });
          offset++;
        });
      }
      assert.equal(offset, part.first + part.count);
    }
    at = next;
  }
}

export function assertRising(offsets: readonly number[]): void {
  for (let i = 1; i < offsets.length; i++) assert.ok(offsets[i]! > offsets[i - 1]!, `${offsets}`);
}

/** The store as it is, and once more after a reopening. */
export async function* beforeAndAfter(streams: Streams, reopen: () => Promise<Streams>) {
  yield streams;
  yield await reopen();
}
