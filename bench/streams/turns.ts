/**
 * Loads that are compared closely take turns, round after round: a machine that others share is faster in one
 * minute than in the next, which one look at each would take for a difference between them.
 */
import type { LoadResult } from "../load/load.ts";

const ROUNDS = 5;

/** What a load gave in each round; where it failed there is none. */
export type Rounds = readonly (LoadResult | undefined)[];

/** Runs all of them one after the other, again and again. */
export async function inTurns<Name extends string>(
  loads: Readonly<Record<Name, () => Promise<LoadResult | undefined>>>,
): Promise<Record<Name, Rounds>> {
  const names = Object.keys(loads) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
    Name,
    (LoadResult | undefined)[]
  >;
  for (let round = 0; round < ROUNDS; round++)
    for (const name of names) results[name].push(await loads[name]());
  return results;
}

/** The round of the median speed. */
export function middle(rounds: Rounds): LoadResult | undefined {
  const there = rounds.filter((result) => result !== undefined);
  return there.sort((a, b) => a.perSecond - b.perSecond)[there.length >> 1];
}

/** The median of what each round's ratio was. */
export function middleRatio(these: Rounds, others: Rounds): number | undefined {
  const ratios: number[] = [];
  for (const [round, one] of these.entries()) {
    const other = others[round];
    if (one !== undefined && other !== undefined) ratios.push(one.perSecond / other.perSecond);
  }
  return ratios.sort((a, b) => a - b)[ratios.length >> 1];
}
