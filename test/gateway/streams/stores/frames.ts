/** Frames of one device, and shards that they fall into. */
import { equalRanges, ShardMap } from "../../../../gateway/streams/shard-map.ts";
import { encodeFrame } from "../../../../protocol/frame.ts";

export const shardsOf = (count: number): ShardMap =>
  new ShardMap(equalRanges(count).map((range, index) => ({ ...range, index })));

/** @param batch of so many records */
export function frameOf(recordCount: number, batch: Uint8Array): Buffer {
  const head = {
    device: "d",
    stream: "s",
    epoch: 7n,
    epochStart: 1,
    sequence: 3n,
    storedUs: 5,
    recordCount,
    timeSource: "ntp",
  } as const;
  return encodeFrame(head, batch);
}
