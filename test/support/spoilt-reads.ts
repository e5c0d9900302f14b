/**
 * Streams of which a read is spoilt as soon as it is released: who looks at it after that finds garbage at once, and
 * not only when its memory happens to be used again.
 */
import type { LogPart, Streams } from "../../gateway/streams/streams.ts";
import { decodeBatch, joinRuns } from "../../protocol/record-batch.ts";

export function spoilReads<S extends Streams>(streams: S): S {
  const read = streams.read.bind(streams);
  streams.read = async (...place) => {
    const result = await read(...place);
    const parts = result.parts.map((part) => new CopiedPart(part));
    const release = (): void => {
      for (const { batch } of parts) batch.fill(0xdb);
      result.release?.();
    };
    return { ...result, parts, release };
  };
  return streams;
}

/** As the store's own, it is decoded when somebody asks for its runs. */
class CopiedPart implements LogPart {
  readonly first: number;
  readonly count: number;
  readonly arrivalMs: number;
  readonly batch: Buffer;

  constructor({ first, count, arrivalMs, batch, runs }: LogPart) {
    this.first = first;
    this.count = count;
    this.arrivalMs = arrivalMs;
    this.batch = Buffer.from(batch ?? joinRuns(runs));
  }

  get runs(): LogPart["runs"] {
    return decodeBatch(this.batch, "trusted");
  }
}
