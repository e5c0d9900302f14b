/**
 * Streams of which a read is spoilt as soon as it is released: who looks at it after that finds garbage at once, and
 * not only when its memory happens to be used again.
 */
import type { Streams } from "../../gateway/streams/streams.ts";
import { decodeBatch, joinRuns } from "../../protocol/record-batch.ts";

export function spoilReads<S extends Streams>(streams: S): S {
  const read = streams.read.bind(streams);
  streams.read = async (...place) => {
    const result = await read(...place);
    const copies = result.parts.map((part) => Buffer.from(part.batch ?? joinRuns(part.runs)));
    const parts = result.parts.map(({ first, count, arrivalMs }, i) => {
      const batch = copies[i]!;
      return { first, count, arrivalMs, batch, runs: decodeBatch(batch, "trusted") };
    });
    const release = (): void => {
      for (const copy of copies) copy.fill(0xdb);
      result.release?.();
    };
    return { ...result, parts, release };
  };
  return streams;
}
