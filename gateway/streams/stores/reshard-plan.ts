/**
 * What a row of splits and merges makes of the open shards, as one change: nothing of it holds before all of it does. A shard that
 * one step makes and a later one closes never takes a record, and is a parent like any other.
 */
import { invariant } from "../../../runtime/errors.ts";
import { placeIn, ShardMap, type ShardRange } from "../shard-map.ts";
import { BadReshardError, MAX_SHARDS, type ReshardStep } from "../streams.ts";

/** A shard that is made. */
export interface MadeShard extends ShardRange {
  /** One or two, by rising range: indexes of shards that were open, or were made before it. */
  readonly parents: readonly number[];
}

export interface ReshardPlan {
  /** Rising by index, so parents stand before their children. */
  readonly made: readonly MadeShard[];
  /** Indexes; of shards that were open and of those that were made in between. */
  readonly closed: ReadonlySet<number>;
  /** The open shards afterwards. */
  readonly map: ShardMap;
}

/**
 * @param steps one at least, in their order
 * @param next the index of the next shard
 * @throws BadReshardError when a step does not fit what those before it left
 */
export function planReshard(
  stream: string,
  map: ShardMap,
  steps: readonly ReshardStep[],
  next: number,
): ReshardPlan {
  invariant(steps.length > 0, "a reshard has a step");
  const made: MadeShard[] = [];
  const closed = new Set<number>();
  const row = [...map.ranges];
  for (const { do: what, at } of steps) {
    const place = placeIn(row, at);
    const count = what === "split" ? 1 : 2;
    const parents = row.slice(place + 1 - count, place + 1);
    const why = misfit(what, at, row, place);
    if (why !== undefined) throw new BadReshardError(stream, why);
    const { hashFrom } = parents[0]!;
    const { hashTo } = parents.at(-1)!;
    const ranges =
      what === "merge"
        ? [{ hashFrom, hashTo }]
        : [
            { hashFrom, hashTo: at - 1n },
            { hashFrom: at, hashTo },
          ];
    const indexes = parents.map(({ index }) => index);
    const children = ranges.map((range) => ({ ...range, index: next++, parents: indexes }));
    made.push(...children);
    for (const index of indexes) closed.add(index);
    row.splice(place + 1 - count, count, ...children);
  }
  return { made, closed, map: new ShardMap(row, "joined") };
}

/** Why a step cannot be done to the shards that there are by then, if so. @param place of the one that has its hash */
function misfit(
  what: ReshardStep["do"],
  at: bigint,
  row: readonly ShardRange[],
  place: number,
): string | undefined {
  const begins = row[place]!.hashFrom === at;
  if (what === "merge") return begins && place > 0 ? undefined : `no two shards touch at ${at}`;
  if (begins) return `a shard begins at ${at} already`;
  return row.length >= MAX_SHARDS ? `it has ${MAX_SHARDS} open shards already` : undefined;
}
