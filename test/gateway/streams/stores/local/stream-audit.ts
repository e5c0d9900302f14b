/** All that a stream holds, read and held against its model. */
import assert from "node:assert/strict";
import type { ReadResult, Streams } from "../../../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../../../protocol/record-batch.ts";
import type { Found, StreamModel } from "./stream-model.ts";

/** Nothing else may run. @param step how much to read at once @param nowMs by a clock that is never wrong */
export async function audit(
  streams: Streams,
  name: string,
  model: StreamModel,
  step: () => number,
  nowMs: number,
): Promise<void> {
  const { shardList, streamId } = streams.describe(name);
  assert.equal(streamId, model.streamId);
  const found = new Set<string>();
  const horizons = new Map<number, number>();
  for (const { shardId, index, trimHorizon, latest } of shardList) {
    horizons.set(index, trimHorizon);
    const acknowledged = model.acknowledged();
    for (let at = trimHorizon; at < latest; ) {
      const { parts, next } = await streams.read(name, shardId, at, step());
      const records = recordsOf(parts).filter(({ offset }) => offset >= at);
      model.judgeRead(index, at, next, trimHorizon, records, acknowledged);
      for (const { text } of records) {
        assert.ok(!found.has(text), `${text} is there twice`);
        found.add(text);
      }
      assert.ok(next > at && next <= latest, `${shardId} goes on at ${next} behind ${at}, up to ${latest}`);
      at = next;
    }
  }
  model.judgeAll(found, horizons, nowMs);
}

export function recordsOf(parts: ReadResult["parts"]): Found[] {
  const found: Found[] = [];
  for (const part of parts) {
    let offset = part.first;
    for (const run of part.runs) {
      forEachRecord(run, (payload) =>
        found.push({ key: run.key, text: payload.toString(), offset: offset++ }),
      );
    }
    assert.equal(offset, part.first + part.count);
  }
  return found;
}

export function indexOf(shardId: string): number {
  return Number(shardId.slice("shardId-".length));
}
