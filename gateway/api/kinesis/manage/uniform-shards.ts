/**
 * The way from the shards that a stream has to shards of equal ranges, one split or merge at a time.
 * It is planned from what is there, so that a call which ended half way, by a crash or a full
 * disk, is finished by the next one. There are never more shards than before or afterwards, whichever is more.
 *
 *   borders that are there ─┐
 *                           ├→ steps: a border goes, a border comes → the shards that it is done to, by their names
 *   borders that shall be ──┘
 */
import type { ShardDescription } from "../../../streams/streams.ts";

export type OpenShard = Pick<ShardDescription, "shardId" | "hashFrom" | "hashTo">;

/** A shard begins at a hash from then on, or none does any more. */
export interface BorderStep {
  readonly do: "split" | "merge";
  readonly at: bigint;
}

export type ReshardStep =
  | { readonly do: "split"; readonly shardId: string; readonly at: bigint }
  | { readonly do: "merge"; readonly shardId: string; readonly adjacentShardId: string };

const HASH_SPACE = 1n << 128n;
/**
 * A border this near to where it should be may stay: a third of the hash space is no whole number,
 * so twice a sixth of it misses by one, and nobody gains from a shard of one hash.
 */
const NEAR = 1n << 64n;

/**
 * All steps, in their order; none when the shards are equal already.
 * @param there where the open shards begin, rising from 0n: they cover all hashes
 */
export function stepsToUniform(there: readonly bigint[], count: number): BorderStep[] {
  const borders = bordersOf(there, count);
  const odd = missingIn(borders, there);
  const wanted = missingIn(there, borders);
  const steps: BorderStep[] = [];
  let open = there.length;
  for (let merged = 0, split = 0; merged < odd.length || split < wanted.length; ) {
    // Merging first, wherever both could be done, keeps the number of shards down.
    const merges = merged < odd.length && (split === wanted.length || open >= count);
    steps.push(merges ? { do: "merge", at: odd[merged++]! } : { do: "split", at: wanted[split++]! });
    open += merges ? -1 : 1;
  }
  return steps;
}

/** The open shards by rising range, as steps change them. */
export class ShardRow {
  readonly #shards: OpenShard[];

  constructor(open: readonly OpenShard[]) {
    this.#shards = [...open].sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  }

  get borders(): bigint[] {
    return this.#shards.map(({ hashFrom }) => hashFrom);
  }

  /** The shards that a step is done to. */
  named({ do: what, at }: BorderStep): ReshardStep {
    const place = this.#placeOf(at);
    const { shardId } = this.#shards[place]!;
    if (what === "split") return { do: "split", shardId, at };
    return { do: "merge", shardId: this.#shards[place - 1]!.shardId, adjacentShardId: shardId };
  }

  /** @param made what the step made of them, rising */
  took({ do: what, at }: BorderStep, made: readonly OpenShard[]): void {
    const place = this.#placeOf(at);
    if (what === "split") this.#shards.splice(place, 1, ...made);
    else this.#shards.splice(place - 1, 2, ...made);
  }

  /** Of the shard that has this hash. */
  #placeOf(hash: bigint): number {
    let low = 0;
    let high = this.#shards.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#shards[middle]!.hashFrom <= hash) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/** Where the ranges shall begin, rising from 0n. @param there where they begin now, rising */
function bordersOf(there: readonly bigint[], count: number): bigint[] {
  const borders: bigint[] = [];
  const width = HASH_SPACE / BigInt(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const exact = width * BigInt(i);
    while (at < there.length && there[at]! + NEAR < exact) at++;
    const near = there[at];
    borders.push(near !== undefined && near <= exact + NEAR ? near : exact);
  }
  return borders;
}

/**
 * Those of `these` that are not among `those`. Both rise. Not by a Set: V8 hashes a bigint by its lower
 * 64 bits, and those of equal ranges are all the same.
 */
function missingIn(those: readonly bigint[], these: readonly bigint[]): bigint[] {
  let at = 0;
  return these.filter((one) => {
    while (at < those.length && those[at]! < one) at++;
    return those[at] !== one;
  });
}
