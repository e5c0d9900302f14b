/** The pipeline's ordeal: real processes, killed at random moments, then judged by what arrived. */
import { readFile } from "node:fs/promises";
import { Pipeline } from "./pipeline.ts";
import { removeFolder } from "./remove-folder.ts";
import {
  emptyVerdict,
  judgeBoard,
  judgeFootage,
  judgeSensors,
  judgeWindows,
  type Verdict,
} from "./verdict.ts";

export interface OrdealOptions {
  readonly dir: string;
  readonly seed: number;
  readonly seconds: number;
  /** How often each of agent and gateway is killed. */
  readonly kills: number;
  readonly say: (line: string) => void;
}

/** Outages last about 3 s here, and the agent takes a while to catch up after each. On a busy machine both take longer. */
const WATERMARK_SECONDS = 30;
const WINDOW_SECONDS = 5;
const MAX_OUTAGE_MS = 2_000;
/** Sensors are all back, and have sent what they had kept, when the agent was there for so long. */
const ALL_BACK_MS = 10_000;
/** Without any progress. */
const DRAIN_MS = 60_000;

/** The folder is removed when nothing was found. */
export async function runOrdeal(options: OrdealOptions): Promise<Verdict> {
  const { dir, seed, seconds, kills, say } = options;
  const pipeline = new Pipeline({
    dir,
    seed,
    camera: true,
    watermarkSeconds: WATERMARK_SECONDS,
    windowSeconds: WINDOW_SECONDS,
  });
  const verdict = emptyVerdict();
  try {
    await pipeline.start();
    say(`running for ${seconds} s; agent and gateway are each killed ${kills} times`);
    const absentMs = await killAtRandom(pipeline, randomFrom(seed), seconds, kills, say);
    const mayBeLate = absentMs + ALL_BACK_MS > WATERMARK_SECONDS * 1_000;
    if (mayBeLate) say(`sensors had no agent for ${(absentMs / 1_000).toFixed(0)} s: they may come late`);
    await Promise.all([pipeline.agent.ready, pipeline.gateway.ready]);
    await pipeline.stopSending();
    await pipeline.drained(DRAIN_MS);
    say("drained; comparing");
    await judgeSensors(pipeline, verdict);
    await judgeBoard(pipeline, verdict);
    await judgeWindows(pipeline, WINDOW_SECONDS, mayBeLate, verdict);
    await judgeFootage(pipeline, await storedUnits(pipeline), verdict);
  } finally {
    const ends = await pipeline.close();
    for (const end of ends) if (end !== 0) verdict.findings.push(`a program ended with ${end} instead of 0`);
  }
  if (verdict.findings.length === 0) await removeFolder(dir);
  return verdict;
}

/** @returns for how long the agent was away at most, ms */
async function killAtRandom(
  pipeline: Pipeline,
  random: () => number,
  seconds: number,
  kills: number,
  say: (line: string) => void,
): Promise<number> {
  const began = performance.now();
  const outages: Outage[] = [];
  const victims = ["agent", "gateway"] as const;
  // The first seconds let the camera connect, the last ones let things run once more.
  const moments = victims
    .flatMap((victim) =>
      Array.from({ length: kills }, () => ({ victim, atMs: 5_000 + random() * (seconds - 10) * 1000 })),
    )
    .sort((a, b) => a.atMs - b.atMs);
  const restarts: Array<Promise<void>> = [];
  for (const { victim, atMs } of moments) {
    await until(began + atMs);
    // The same program may still be starting: wait, so that each kill is one.
    await pipeline[victim].ready.catch(() => {});
    say(`${((performance.now() - began) / 1000).toFixed(1)} s: kill -9 ${victim}`);
    await pipeline[victim].kill();
    const outage: Outage = { fromMs: performance.now(), toMs: Number.POSITIVE_INFINITY };
    if (victim === "agent") outages.push(outage);
    await until(performance.now() + random() * MAX_OUTAGE_MS);
    if (victim === "agent") pipeline.startAgent();
    else pipeline.startGateway();
    const back = (): void => {
      outage.toMs = performance.now();
    };
    restarts.push(pipeline[victim].ready.then(back, back));
  }
  await Promise.all(restarts);
  await until(began + seconds * 1000);
  return longestMs(outages);
}

interface Outage {
  readonly fromMs: number;
  toMs: number;
}

/** Outages between which not everybody could come back count as one. */
function longestMs(outages: readonly Outage[]): number {
  let longest = 0;
  let sinceMs = 0;
  let beforeMs = Number.NEGATIVE_INFINITY;
  for (const { fromMs, toMs } of outages) {
    if (fromMs - beforeMs > ALL_BACK_MS) sinceMs = fromMs;
    beforeMs = toMs;
    longest = Math.max(longest, toMs - sinceMs);
  }
  return longest;
}

/** What the agent said that it had stored, as `epoch/sequence`; it says so after the sync. */
async function storedUnits(pipeline: Pipeline): Promise<Set<string>> {
  const units = new Set<string>();
  for (const line of (await readFile(pipeline.path("agent.log"), "utf8")).split("\n")) {
    if (!line.includes('"footage unit stored"')) continue;
    const { epoch, sequence } = JSON.parse(line) as { epoch: string; sequence: string };
    units.add(`${epoch}/${sequence}`);
  }
  return units;
}

function until(atMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, atMs - performance.now())));
}

/** Mulberry32: the same seed kills at the same moments. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
