/** A real stream log, one statement over it, and the same question asked of DuckDB directly. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import type { Analytics } from "../../../gateway/analytics/analytics.ts";
import { openAnalytics } from "../../../gateway/analytics/open-analytics.ts";
import type { CommitStep } from "../../../gateway/analytics/statement.ts";
import { type LocalStreams, openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import type { Streams } from "../../../gateway/streams/streams.ts";
import { forEachRecord } from "../../../protocol/record-batch.ts";
import { pause } from "../../../runtime/backoff.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { spoilReads } from "../../support/spoilt-reads.ts";

export const INPUT = "sensors";
export const OUTPUT = "windows";
export const WINDOW_MS = 10_000;
export const DELAY_MS = 5_000;
export const SHARDS = 3;
export const START_MS = Date.UTC(2026, 0, 1);

export const SQL = `
CREATE TABLE readings (sensor STRING, temperature DOUBLE, counter BIGINT, note STRING, \`time\` TIMESTAMP_LTZ(3),
  WATERMARK FOR \`time\` AS \`time\` - INTERVAL '5' SECOND)
WITH ('connector' = 'kinesis', 'stream' = '${INPUT}', 'format' = 'json');
CREATE TABLE results (sensor STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT, temperatures BIGINT,
  mean DOUBLE, total DOUBLE, low DOUBLE, high DOUBLE, counted BIGINT, mean_counter BIGINT, notes BIGINT)
WITH ('connector' = 'kinesis', 'stream' = '${OUTPUT}', 'format' = 'json');
INSERT INTO results
SELECT sensor, window_start, window_end, COUNT(*), COUNT(temperature), AVG(temperature), SUM(temperature),
  MIN(temperature), MAX(temperature), SUM(counter), AVG(counter), COUNT(note)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(\`time\`), INTERVAL '10' SECOND))
GROUP BY sensor, window_start, window_end;`;

export interface Reading {
  readonly sensor: string | null;
  readonly timeMs: number;
  readonly temperature?: number | null;
  readonly counter?: number | null;
  readonly note?: string;
}

export type Result = Record<string, string | number | null>;

export interface Rig<S extends Streams = LocalStreams> {
  readonly streams: S;
  readonly analytics: Analytics;
  readonly metrics: Metrics;
  put(readings: readonly Reading[]): Promise<void>;
  close(): Promise<void>;
}

export interface RigOptions {
  readonly clock?: Clock;
  readonly idleSeconds?: number;
  readonly sql?: string;
  readonly maxGroups?: number;
  readonly shards?: number;
  readonly log?: Log;
  readonly onStep?: (step: CommitStep) => void | Promise<void>;
}

const open = new Set<Rig<Streams>>();

export async function openRig(dir: string, options: RigOptions = {}): Promise<Rig> {
  const { clock = systemClock, log = silentLog } = options;
  const metrics = new Metrics();
  const streams = spoilReads(await openLocalStreams({ dir: join(dir, "streams"), clock, log, metrics }));
  return openRigOver(streams, dir, options, metrics);
}

/** @param streams are closed with it */
export async function openRigOver<S extends Streams>(
  streams: S,
  dir: string,
  options: RigOptions = {},
  metrics = new Metrics(),
): Promise<Rig<S>> {
  const { clock = systemClock, log = silentLog } = options;
  for (const name of [INPUT, OUTPUT]) {
    if (!streams.listStreams().includes(name)) {
      await streams.createStream({ name, shards: options.shards ?? SHARDS, retentionHours: 24 });
    }
  }
  const analytics = await openAnalytics({
    dir: join(dir, "analytics"),
    streams,
    statements: [{ name: "tens", sql: options.sql ?? SQL, idleSeconds: options.idleSeconds ?? 3_600 }],
    clock,
    log,
    metrics,
    ...(options.maxGroups !== undefined && { maxGroups: options.maxGroups }),
    ...(options.onStep && { onStep: (_: string, step: CommitStep) => options.onStep?.(step) }),
  });
  const rig: Rig<S> = {
    streams,
    analytics,
    metrics,
    put: async (readings) => {
      await streams.append(
        INPUT,
        readings.map((reading) => entryOf(reading)),
      );
    },
    close: async () => {
      open.delete(rig);
      await analytics.close();
      await streams.close();
    },
  };
  open.add(rig);
  return rig;
}

/** A folder for `body`, gone behind it with all rigs. */
export async function inFolder(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-analytics-"));
  try {
    await body(dir);
  } finally {
    await closeRigs();
    await removeFolder(dir);
  }
}

/** So that a test that fails leaves nothing running. */
export async function closeRigs(): Promise<void> {
  for (const rig of [...open]) await rig.close();
}

export function entryOf({ timeMs, ...fields }: Reading): { partitionKey: string; data: Buffer } {
  const data = Buffer.from(JSON.stringify({ ...fields, time: new Date(timeMs).toISOString() }));
  return { partitionKey: fields.sensor ?? "none", data };
}

/** Both hands are turned by the test. Begins with 2026. */
export function handClock(): Clock & { advance(ms: number): void } {
  let ms = 0;
  return {
    nowUs: () => (START_MS + ms) * 1_000,
    monotonicMs: () => ms,
    advance: (by) => {
      ms += by;
    },
  };
}

/** The watermark is that of the slowest shard. */
export function watermarkOf(readings: readonly Reading[], shardOf: (sensor: string) => string): number {
  const newest = new Map<string, number>();
  for (const { sensor, timeMs } of readings) {
    const shard = shardOf(sensor ?? "none");
    newest.set(shard, Math.max(newest.get(shard) ?? 0, timeMs));
  }
  return Math.min(...newest.values()) - DELAY_MS;
}

/** Where the rig's stream puts the readings of each sensor. */
export async function shardsOf(dir: string): Promise<(sensor: string) => string> {
  const rig = await openRig(join(dir, "routing"));
  const shards = new Map<string, string>();
  for (const sensor of [...Array.from({ length: 6 }, (_, i) => `sensor/${i}`), "none"]) {
    const [placed] = await rig.streams.append(INPUT, [{ partitionKey: sensor, data: Buffer.from("{}") }]);
    shards.set(sensor, placed!.shardId);
  }
  await rig.close();
  return (sensor) => shards.get(sensor)!;
}

/** Everything in a stream, shard by shard. */
export async function contents(streams: Streams, stream: string): Promise<Record<string, unknown>[]> {
  const found: Record<string, unknown>[] = [];
  for (const { shardId, trimHorizon, latest } of streams.describe(stream).shardList) {
    for (let at = trimHorizon; at < latest; ) {
      const result = await streams.read(stream, shardId, at, 1_048_576);
      for (const part of result.parts) {
        for (const run of part.runs) {
          forEachRecord(run, (payload) => void found.push(JSON.parse(payload.toString())));
        }
      }
      at = result.next;
    }
  }
  return found;
}

/** By window and key; throws when a window came twice. */
export async function results(streams: Streams): Promise<Result[]> {
  const all = (await contents(streams, OUTPUT)) as Result[];
  const name = (result: Result): string => `${result.window_end} ${result.sensor}`;
  const names = new Set(all.map(name));
  if (names.size !== all.length) throw new Error(`${all.length - names.size} windows came twice`);
  return all.sort((a, b) => (name(a) < name(b) ? -1 : 1));
}

/** What DuckDB makes of the same readings, up to windows that end by `watermarkMs`. */
export async function askDuckDb(readings: readonly Reading[], watermarkMs: number): Promise<Result[]> {
  const instance = await DuckDBInstance.create(":memory:", { threads: "1" });
  const connection = await instance.connect();
  await connection.run(
    "CREATE TABLE r (sensor VARCHAR, t BIGINT, temperature DOUBLE, counter BIGINT, note VARCHAR)",
  );
  const appender = await connection.createAppender("r");
  for (const reading of readings) {
    if (reading.sensor === null) appender.appendNull();
    else appender.appendVarchar(reading.sensor);
    appender.appendBigInt(BigInt(reading.timeMs));
    if (reading.temperature == null) appender.appendNull();
    else appender.appendDouble(reading.temperature);
    if (reading.counter == null) appender.appendNull();
    else appender.appendBigInt(BigInt(reading.counter));
    if (reading.note === undefined) appender.appendNull();
    else appender.appendVarchar(reading.note);
    appender.endRow();
  }
  appender.closeSync();
  const reader = await connection.runAndReadAll(`
    SELECT sensor, (t // ${WINDOW_MS}) * ${WINDOW_MS} AS pane, count(*) AS n, count(temperature) AS temperatures,
      avg(temperature) AS mean, sum(temperature) AS total, min(temperature) AS low, max(temperature) AS high,
      sum(counter) AS counted, trunc(sum(counter) / count(counter)) AS mean_counter, count(note) AS notes
    FROM r WHERE (t // ${WINDOW_MS} + 1) * ${WINDOW_MS} <= ${watermarkMs} GROUP BY sensor, t // ${WINDOW_MS}`);
  const rows = reader.getRowObjects().map(({ pane, ...row }) => {
    const fields = Object.entries(row).map(([name, value]) => [
      name,
      typeof value === "bigint" ? Number(value) : value,
    ]);
    return {
      ...Object.fromEntries(fields),
      window_start: new Date(Number(pane)).toISOString(),
      window_end: new Date(Number(pane) + WINDOW_MS).toISOString(),
    } as Result;
  });
  connection.closeSync();
  instance.closeSync();
  const name = (result: Result): string => `${result.window_end} ${result.sensor}`;
  return rows.sort((a, b) => (name(a) < name(b) ? -1 : 1));
}

/** Equal, with doubles compared to a relative 1e-12. @returns the first difference */
export function difference(found: readonly Result[], expected: readonly Result[]): string | undefined {
  if (found.length !== expected.length) return `${found.length} results, ${expected.length} expected`;
  for (const [i, want] of expected.entries()) {
    const have = found[i]!;
    for (const [name, value] of Object.entries(want)) {
      const other = have[name];
      if (other === value) continue;
      const close = typeof value === "number" && typeof other === "number";
      if (close && Math.abs(value - other) <= 1e-12 * Math.max(Math.abs(value), Math.abs(other))) continue;
      return `${name} of ${want.sensor} at ${want.window_end}: ${other}, ${value} expected`;
    }
  }
  return undefined;
}

export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  maxMs = 120_000,
): Promise<void> {
  const end = performance.now() + maxMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${maxMs} ms in vain: ${what}`);
    await pause(10);
  }
}

/** A repeatable stream of readings: seven sensors, 1 s apart, some fields missing, up to 3 s out of order. */
export function madeUp(seconds: number, fromMs: number): Reading[] {
  let seed = 42;
  const random = (): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed / 2 ** 32;
  };
  const made: Reading[] = [];
  for (let second = 0; second < seconds; second++) {
    for (let i = 0; i < 7; i++) {
      made.push({
        sensor: i === 6 ? null : `sensor/${i}`,
        timeMs: fromMs + second * 1_000 - Math.floor(random() * 3_000),
        ...(random() < 0.9 && { temperature: 20 + random() * 5 + (i === 5 ? 1e9 : 0) }),
        ...(random() < 0.8 && { counter: Math.floor(random() * 1e6) - 500_000 }),
        ...(random() < 0.3 && { note: "ok" }),
      });
    }
  }
  return made;
}
