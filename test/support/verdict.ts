/**
 * Compares what the simulator knows that it sent with what the pipeline delivered: counts what is
 * lost, doubled, out of order or changed, and says which.
 */
import { DuckDBInstance } from "@duckdb/node-api";
import type { GapRecord } from "../../protocol/topics.ts";
import { deliveredLines, deliveredObjects, truthLines } from "./delivered.ts";
import { pictureDigests } from "./picture-digests.ts";
import type { Pipeline } from "./pipeline.ts";

export interface Verdict {
  lost: number;
  doubled: number;
  /** Changed, out of order, or never sent. */
  corrupted: number;
  /** The first findings, in words. */
  readonly findings: string[];
  /** How much was compared, so that an empty run cannot pass for a good one. */
  readonly compared: {
    messages: number;
    boardRecords: number;
    windows: number;
    pictures: number;
    units: number;
    /** What the agent said that it had stored. */
    storedUnits: number;
  };
}

const MAX_FINDINGS = 20;

export function emptyVerdict(): Verdict {
  return {
    lost: 0,
    doubled: 0,
    corrupted: 0,
    findings: [],
    compared: { messages: 0, boardRecords: 0, windows: 0, pictures: 0, units: 0, storedUnits: 0 },
  };
}

type Count = "lost" | "doubled" | "corrupted";

function found(verdict: Verdict, kind: Count, what: string): void {
  verdict[kind]++;
  if (verdict.findings.length < MAX_FINDINGS) verdict.findings.push(`${kind}: ${what}`);
}

/** Every acknowledged message is delivered once, and in the order in which its sensor sent it. */
export async function judgeSensors(pipeline: Pipeline, verdict: Verdict): Promise<void> {
  type Truth = { topic: string; seq?: number; value?: number };
  const sent = new Map<string, number[]>();
  for (const { topic, seq, value } of await truthLines<Truth>(pipeline.path("truth", "sensors.ndjson"))) {
    const sensor = topic.startsWith("farm/") ? topic : topic.split("/")[1]!;
    push(sent, sensor, (seq ?? value)!);
  }
  const came = new Map<string, number[]>();
  for (const { json } of await deliveredLines(pipeline.path("delivered", "sensors"))) {
    if (json.sensor === "board") continue;
    push(came, String(json.sensor), Number(json.seq ?? json.Seq ?? json.value));
  }
  for (const sensor of new Set([...sent.keys(), ...came.keys()])) {
    const acknowledged = sent.get(sensor) ?? [];
    verdict.compared.messages += acknowledged.length;
    compare(verdict, `message of ${sensor}`, acknowledged, came.get(sensor) ?? []);
  }
}

/**
 * Of the board's counter nothing is doubled or out of order, and what is missing lies in a reported gap:
 * between the records before and behind it. All these times are of the agent's clock, so that it does
 * not matter how long a line was on its way.
 */
export async function judgeBoard(pipeline: Pipeline, verdict: Verdict): Promise<void> {
  const sent = await truthLines<{ counter: number }>(pipeline.path("truth", "board.ndjson"));
  const counters: number[] = [];
  const timesMs = new Map<number, number>();
  for (const { json } of await deliveredLines(pipeline.path("delivered", "sensors"))) {
    if (json.sensor !== "board") continue;
    counters.push(Number(json.counter));
    timesMs.set(Number(json.counter), Date.parse(String(json.time)));
  }
  const gaps = (await deliveredLines(pipeline.path("delivered", "gaps")))
    .map(({ json }) => json as unknown as GapRecord)
    .filter((gap) => gap.sensor === "board");
  verdict.compared.boardRecords += counters.length;
  const there = [...timesMs.keys()].sort((a, b) => a - b);
  for (const { counter } of sent) {
    if (timesMs.has(counter)) continue;
    const next = there.find((other) => other > counter);
    const before = there.findLast((other) => other < counter);
    const fromMs = before === undefined ? Number.NEGATIVE_INFINITY : timesMs.get(before)!;
    const toMs = next === undefined ? Number.POSITIVE_INFINITY : timesMs.get(next)!;
    // A record's time has whole milliseconds.
    const covered = gaps.some((gap) => Math.floor(gap.fromUs / 1_000) < toMs && gap.toUs / 1_000 >= fromMs);
    if (!covered) found(verdict, "lost", `board counter ${counter} outside every reported gap`);
  }
  const known = new Set(sent.map((line) => line.counter));
  compare(
    verdict,
    "board counter",
    [...new Set(counters)].filter((counter) => known.has(counter)).sort((a, b) => a - b),
    counters,
  );
}

/**
 * Closed windows equal what DuckDB computes from the delivered files.
 * @param mayBeLate an outage was longer than the watermark: of sensors that say their own time, some are
 *   back before others, whose records come late. Then the windows lack what was counted as late, and no more.
 */
export async function judgeWindows(
  pipeline: Pipeline,
  windowSeconds: number,
  mayBeLate: boolean,
  verdict: Verdict,
): Promise<void> {
  const { statements } = await pipeline.gatewayState();
  const statement = statements[0]!;
  const { late } = statement;
  if (late > 0 && !mayBeLate) found(verdict, "lost", `${late} records came late for their window`);
  const watermarkMs = Math.floor(Number(statement.watermarkUs ?? 0) / 1000);
  const expected = await windowsByDuckDb(pipeline, windowSeconds, watermarkMs);
  const seen = new Map<string, Record<string, unknown>>();
  for (const { json } of await deliveredLines(pipeline.path("delivered", "windows"))) {
    const key = `${json.sensor} ${Date.parse(String(json.window_start))}`;
    if (seen.has(key)) found(verdict, "doubled", `window ${key}`);
    seen.set(key, json);
  }
  verdict.compared.windows += expected.size;
  const lacking = [...expected].map(([key, want]) => want.n - Number(seen.get(key)?.n ?? 0));
  const explained = mayBeLate && late > 0 && sumOf(lacking) === late && lacking.every((n) => n >= 0);
  for (const [key, want] of expected) {
    const got = seen.get(key);
    if (explained && want.n > Number(got?.n ?? 0)) continue;
    if (got === undefined) found(verdict, "lost", `window ${key}`);
    else if (!sameWindow(want, got))
      found(
        verdict,
        "corrupted",
        `window ${key}: ${JSON.stringify(got)}, DuckDB says ${JSON.stringify(want)}`,
      );
  }
  for (const key of seen.keys())
    if (!expected.has(key)) found(verdict, "corrupted", `window ${key} that nothing explains`);
}

interface Window {
  n: number;
  mean: number | null;
  low: number | null;
  high: number | null;
  humid: number;
}

async function windowsByDuckDb(
  pipeline: Pipeline,
  windowSeconds: number,
  watermarkMs: number,
): Promise<Map<string, Window>> {
  const files = (await deliveredObjects(pipeline.path("delivered", "sensors")))
    .map((file) => `'${file}'`)
    .join(",");
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  const windowMs = windowSeconds * 1000;
  const result = await connection.runAndReadAll(`
    WITH readings AS (
      SELECT sensor, temperature, humidity,
             CAST(floor(epoch_ms("time"::TIMESTAMPTZ) / ${windowMs}) AS BIGINT) * ${windowMs} AS start
      FROM read_json([${files}], format = 'newline_delimited',
                     columns = {sensor: 'VARCHAR', time: 'VARCHAR', temperature: 'DOUBLE', humidity: 'DOUBLE'})
    )
    SELECT sensor, start, count(*)::INTEGER AS n, avg(temperature) AS mean,
           min(temperature) AS low, max(temperature) AS high, count(humidity)::INTEGER AS humid
    FROM readings WHERE start + ${windowMs} <= ${watermarkMs} GROUP BY sensor, start`);
  const windows = new Map<string, Window>();
  for (const { sensor, start, ...window } of result.getRowObjects()) {
    windows.set(`${sensor} ${start}`, window as unknown as Window);
  }
  connection.closeSync();
  instance.closeSync();
  return windows;
}

/** Counts and extremes to the bit; a mean to the last places, where the order of a sum shows. */
function sameWindow(want: Window, got: Record<string, unknown>): boolean {
  const mean = got.mean as number | null;
  const means =
    want.mean === null || mean === null
      ? want.mean === mean
      : Math.abs(want.mean - mean) <= 1e-12 * Math.max(1, Math.abs(want.mean));
  return (
    got.n === want.n && got.humid === want.humid && got.low === want.low && got.high === want.high && means
  );
}

/** Every unit that the agent stored is in the archive, whole, with the camera's own pictures in their order. */
export async function judgeFootage(
  pipeline: Pipeline,
  storedUnits: ReadonlySet<string>,
  verdict: Verdict,
): Promise<void> {
  const truth = await truthLines<{ vclSha256: string }>(pipeline.path("truth", "camera.ndjson"));
  const places = new Map<string, number[]>();
  truth.forEach((picture, i) => {
    push(places, picture.vclSha256, i);
  });
  const archived = new Set<string>();
  verdict.compared.storedUnits += storedUnits.size;
  for (const fragment of await pipeline.footage("yard")) {
    const name = `${fragment.epoch}/${fragment.sequence}`;
    if (archived.has(name)) found(verdict, "doubled", `unit ${name}`);
    archived.add(name);
    verdict.compared.units++;
    if (fragment.state !== "whole") {
      // Without its end a unit was never whole at the agent either, unless the agent says so.
      if (storedUnits.has(name)) found(verdict, "lost", `unit ${name} is ${fragment.state}`);
      continue;
    }
    let expected: number | undefined;
    for (const picture of pictureDigests(await pipeline.fragmentFile("yard", fragment.id))) {
      verdict.compared.pictures++;
      const at: number[] = places.get(picture.vclSha256) ?? [];
      const here: number | undefined =
        expected === undefined ? at[0] : at.find((place) => place === expected);
      if (here === undefined) {
        found(
          verdict,
          "corrupted",
          `unit ${name}: a picture ${at.length === 0 ? "that the camera never sent" : "out of order"}`,
        );
        expected = undefined;
      } else {
        expected = here + 1;
      }
    }
  }
  for (const name of storedUnits) if (!archived.has(name)) found(verdict, "lost", `unit ${name}`);
}

function compare(verdict: Verdict, what: string, expected: readonly number[], came: readonly number[]): void {
  const wanted = new Set(expected);
  const seen = new Set<number>();
  let before = Number.NEGATIVE_INFINITY;
  for (const item of came) {
    if (seen.has(item)) found(verdict, "doubled", `${what} ${item}`);
    else if (!wanted.has(item)) found(verdict, "corrupted", `${what} ${item} was never acknowledged`);
    else if (item < before) found(verdict, "corrupted", `${what} ${item} came after ${before}`);
    seen.add(item);
    before = Math.max(before, item);
  }
  for (const item of wanted) if (!seen.has(item)) found(verdict, "lost", `${what} ${item}`);
}

function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, n) => sum + n, 0);
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
