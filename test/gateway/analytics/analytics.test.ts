import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { StatementRefusedError } from "../../../gateway/analytics/open-analytics.ts";
import type { CommitStep } from "../../../gateway/analytics/statement.ts";
import { pause } from "../../../runtime/backoff.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import {
  askDuckDb,
  contents,
  difference,
  handClock,
  INPUT,
  inFolder,
  madeUp,
  OUTPUT,
  openRig,
  type Reading,
  results,
  SQL,
  START_MS,
  shardsOf,
  until,
  watermarkOf,
} from "./analytics-rig.ts";

test("results equal what DuckDB computes from the same records", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const readings = madeUp(120, START_MS);
    const rig = await openRig(dir);
    await rig.analytics.start();
    for (let at = 0; at < readings.length; at += 70) await rig.put(readings.slice(at, at + 70));
    const expected = await askDuckDb(readings, watermarkOf(readings, shardOf));
    assert.ok(expected.length > 50, `${expected.length} windows`);
    await until("all windows", async () => (await contents(rig.streams, OUTPUT)).length >= expected.length);
    assert.equal(difference(await results(rig.streams), expected), undefined);
    const status = rig.analytics.status()[0]!;
    assert.equal(status.records, readings.length);
    assert.equal(status.late, 0);
    assert.equal(status.rejected, 0);
    assert.equal(status.results, expected.length);
    assert.equal(status.watermarkUs, watermarkOf(readings, shardOf) * 1_000);
    assert.equal(status.state, "running");
    await rig.close();
    await rig.close();
  }));

test("a late record is counted and changes nothing; one within the delay counts", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { shards: 1 });
    await rig.analytics.start();
    const at = (seconds: number): Reading => ({
      sensor: "a",
      timeMs: START_MS + seconds * 1_000,
      temperature: 1,
    });
    await rig.put([at(1), at(14)]);
    await until("read", () => rig.analytics.status()[0]!.records === 2);
    await rig.put([at(2)]);
    await until("read", () => rig.analytics.status()[0]!.records === 3);
    assert.deepEqual(await results(rig.streams), []);
    await rig.put([at(15)]);
    await until("the first window closes", async () => (await results(rig.streams)).length === 1);
    await rig.put([at(9.999), at(3), at(10)]);
    await rig.put([at(25)]);
    await until("the second window closes", async () => (await results(rig.streams)).length === 2);
    assert.deepEqual(
      (await results(rig.streams)).map((result) => [result.window_end, result.n]),
      [
        ["2026-01-01T00:00:10.000Z", 2],
        ["2026-01-01T00:00:20.000Z", 3],
      ],
    );
    assert.equal(rig.analytics.status()[0]!.late, 2);
    await rig.close();
  }));

test("what was read before a clean end is neither read nor counted again", () =>
  inFolder(async (dir) => {
    const readings = madeUp(1, START_MS);
    const first = await openRig(dir);
    await first.analytics.start();
    await first.put(readings);
    await until("read", () => first.analytics.status()[0]!.records === readings.length);
    await first.close();
    let steps = 0;
    const second = await openRig(dir, { onStep: () => void steps++ });
    await second.analytics.start();
    await until("it has begun", () => steps > 0);
    assert.equal(second.analytics.status()[0]!.records, readings.length);
    await second.put(readings);
    await until("read", () => second.analytics.status()[0]!.records === 2 * readings.length);
    const counted = /^headwater_analytics_records_total.* (\d+)$/m.exec(await second.metrics.render())?.[1];
    assert.equal(Number(counted), readings.length);
    await second.close();
  }));

test("a silent shard holds the watermark back until it is idle, and is waited for again when it speaks", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const names = Array.from({ length: 6 }, (_, i) => `sensor/${i}`);
    const one = names[0]!;
    const other = names.find((name) => shardOf(name) !== shardOf(one))!;
    const clock = handClock();
    const rig = await openRig(dir, { clock, idleSeconds: 30 });
    await rig.analytics.start();
    const at = (sensor: string, seconds: number): Reading => ({ sensor, timeMs: START_MS + seconds * 1_000 });
    await rig.put([at(one, 1), at(one, 40)]);
    await until("read", () => rig.analytics.status()[0]!.records === 2);
    assert.equal(rig.analytics.status()[0]!.watermarkUs, undefined);
    clock.advance(29_000);
    await rig.put([at(one, 41)]);
    await until("read", () => rig.analytics.status()[0]!.records === 3);
    assert.equal(rig.analytics.status()[0]!.watermarkUs, undefined);
    clock.advance(2_000);
    await until("the others are idle", () => rig.analytics.status()[0]!.watermarkUs !== undefined);
    assert.equal(rig.analytics.status()[0]!.watermarkUs, (START_MS + 36_000) * 1_000);
    await rig.put([at(other, 37), at(other, 20)]);
    await until("read", () => rig.analytics.status()[0]!.records === 5);
    assert.equal(rig.analytics.status()[0]!.late, 1);
    await rig.put([at(one, 100)]);
    await until("read", () => rig.analytics.status()[0]!.records === 6);
    assert.equal(
      rig.analytics.status()[0]!.watermarkUs,
      (START_MS + 36_000) * 1_000,
      "held by the other at 37 s",
    );
    await rig.close();
  }));

test("who sends only what cannot be decoded, or what is late, holds nobody's windows up", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const names = Array.from({ length: 6 }, (_, i) => `sensor/${i}`);
    const one = names[0]!;
    const others = [...new Map(names.map((name) => [shardOf(name), name])).values()].filter(
      (name) => shardOf(name) !== shardOf(one),
    );
    const clock = handClock();
    const rig = await openRig(dir, { clock, idleSeconds: 30 });
    await rig.analytics.start();
    const status = () => rig.analytics.status()[0]!;
    let records = 0;
    const read = (more: number): Promise<void> => {
      records += more;
      return until("read", () => status().records === records);
    };
    // One of the others is known by its time, and has only late records from then on.
    await rig.put([
      { sensor: one, timeMs: START_MS + 1_000 },
      { sensor: others[0]!, timeMs: START_MS + 40_000 },
    ]);
    await read(2);
    for (let i = 0; i < 8; i++) {
      clock.advance(10_000);
      await rig.put([{ sensor: one, timeMs: START_MS + 41_000 + i * 10_000 }]);
      await rig.streams.append(INPUT, [
        ...others.map((partitionKey) => ({ partitionKey, data: Buffer.from("garbage") })),
        { partitionKey: others[0]!, data: Buffer.from('{"time":"1999-01-01T00:00:00Z"}') },
      ]);
      await read(2 + others.length);
    }
    const end = (START_MS + 106_000) * 1_000;
    await until("the watermark goes on", () => status().watermarkUs === end);
    assert.ok(status().rejected >= 5);
    await rig.close();
  }));

test("records that do not fit the table are counted as rejected and do not stop the statement", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { shards: 1 });
    await rig.analytics.start();
    const bad = [
      "no json",
      "[]",
      "{}",
      '{"time":"yesterday"}',
      '{"time":"2026-01-01T00:00:01Z","temperature":"warm"}',
      '{"time":"2026-01-01T00:00:01Z","counter":1.5}',
      `{"time":${Date.now() + 7_200_000}}`,
    ];
    await rig.streams.append(
      INPUT,
      bad.map((text) => ({ partitionKey: "x", data: Buffer.from(text) })),
    );
    await rig.put([
      { sensor: "a", timeMs: START_MS },
      { sensor: "a", timeMs: START_MS + 15_000 },
    ]);
    await until("a window", async () => (await results(rig.streams)).length === 1);
    assert.equal(rig.analytics.status()[0]!.rejected, bad.length);
    const [result] = await results(rig.streams);
    assert.deepEqual([result!.n, result!.temperatures, result!.mean, result!.counted], [1, 0, null, null]);
    await rig.close();
  }));

const STEPS: CommitStep[] = ["checkpoint", "frames", "consumer"];
for (const step of STEPS) {
  for (const kills of [1, 2]) {
    test(`a statement killed by SIGKILL after "${step}", ${kills} times, yields each window once`, () =>
      inFolder(async (dir) => {
        const shardOf = await shardsOf(dir);
        const readings = madeUp(60, START_MS);
        const before = await openRig(dir);
        await before.put(readings.slice(0, 210));
        await before.close();
        // The first commit is the empty one of the start; the second closes windows.
        await runKilled(dir, step, 2);
        if (kills === 2) {
          const between = await openRig(dir);
          await between.put(readings.slice(210, 350));
          await between.close();
          await runKilled(dir, step, 2);
        }
        const rig = await openRig(dir);
        await rig.analytics.start();
        await rig.put(readings.slice(kills === 1 ? 210 : 350));
        const expected = await askDuckDb(readings, watermarkOf(readings, shardOf));
        await until(
          "all windows",
          async () => (await contents(rig.streams, OUTPUT)).length >= expected.length,
        );
        assert.equal(difference(await results(rig.streams), expected), undefined);
        assert.equal(rig.analytics.status()[0]!.late, 0);
        assert.equal(rig.analytics.status()[0]!.records, readings.length);
        await rig.close();
      }));
  }
}

test("restarted at random moments, it yields each window once with the right values", () =>
  inFolder(async (dir) => {
    const shardOf = await shardsOf(dir);
    const readings = madeUp(180, START_MS);
    let fed = 0;
    for (let round = 0; round < 6; round++) {
      const failAt = Math.floor(Math.random() * 12);
      let steps = 0;
      const rig = await openRig(dir, {
        onStep: () => {
          // A disk that fails at this step: all that is in memory is thrown away and built again.
          if (++steps === failAt) throw new Error("the disk said no");
        },
      });
      await rig.analytics.start();
      const upTo = Math.floor(((round + 1) * readings.length) / 6);
      for (; fed < upTo; fed += 35) await rig.put(readings.slice(fed, Math.min(fed + 35, readings.length)));
      await pause(Math.random() * 300);
      await rig.close();
    }
    assert.ok(fed >= readings.length);
    const rig = await openRig(dir);
    await rig.analytics.start();
    const expected = await askDuckDb(readings, watermarkOf(readings, shardOf));
    await until("all windows", async () => (await contents(rig.streams, OUTPUT)).length >= expected.length);
    assert.equal(difference(await results(rig.streams), expected), undefined);
    await rig.close();
  }));

test("a failing step does not make the metrics count a record or a result twice", () =>
  inFolder(async (dir) => {
    let commits = 0;
    const rig = await openRig(dir, {
      shards: 1,
      onStep: (step) => {
        if (step === "checkpoint" && ++commits === 2) throw new Error("the disk said no");
      },
    });
    // Counted as read, and read again: the failing commit is the first that would have held it.
    const read = rig.streams.read.bind(rig.streams);
    let refused = 0;
    rig.streams.read = async (...args) => {
      const result = await read(...args);
      if (result.parts.length === 0 || refused > 0) return result;
      const status = rig.analytics.status()[0]!;
      if (status.records === 0) return result;
      refused++;
      throw new Error("the disk said no");
    };
    await rig.analytics.start();
    await rig.put([{ sensor: "a", timeMs: START_MS }]);
    await until("read", () => rig.analytics.status()[0]!.records === 1);
    await rig.put([{ sensor: "a", timeMs: START_MS + 15_000 }]);
    await until("the window comes", async () => (await results(rig.streams)).length === 1);
    await until("both are counted", () => rig.analytics.status()[0]!.records === 2);
    assert.equal(refused, 1);
    const text = await rig.metrics.render();
    assert.match(text, /headwater_analytics_records_total\{statement="tens"\} 2\n/);
    assert.match(text, /headwater_analytics_results_total\{statement="tens"\} 1\n/);
  }));

test("a record that is nested more deeply than the stack goes is rejected, and others are read on", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { shards: 1 });
    await rig.analytics.start();
    const deep = `{"time":"2026-01-01T00:00:01Z","sensor":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
    await rig.streams.append(INPUT, [{ partitionKey: "x", data: Buffer.from(deep) }]);
    await rig.put([
      { sensor: "a", timeMs: START_MS },
      { sensor: "a", timeMs: START_MS + 15_000 },
    ]);
    await until("a window", async () => (await results(rig.streams)).length === 1);
    assert.equal(rig.analytics.status()[0]!.rejected, 1);
    assert.equal(rig.analytics.status()[0]!.lastError, undefined);
  }));

test("an output stream that is missing is waited for, and its results come once", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { shards: 1 });
    await rig.streams.deleteStream(OUTPUT);
    await rig.put([
      { sensor: "a", timeMs: START_MS },
      { sensor: "a", timeMs: START_MS + 15_000 },
    ]);
    await rig.analytics.start();
    await until("the error shows", () => rig.analytics.status()[0]!.lastError !== undefined);
    assert.match(rig.analytics.status()[0]!.lastError!, /^STREAM_NOT_FOUND/);
    assert.equal(rig.analytics.status()[0]!.state, "running");
    await rig.streams.createStream({ name: OUTPUT, shards: 1, retentionHours: 24 });
    await until("the window comes", async () => (await results(rig.streams)).length === 1);
    await rig.close();
  }));

test("a statement is failing while it cannot write its checkpoint, and no longer; not for want of a stream", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir);
    const status = () => rig.analytics.status()[0]!;
    // A folder where the file belongs stops root, too.
    const inTheWay = join(dir, "analytics", "tens", "checkpoint.tmp");
    await mkdir(inTheWay, { recursive: true });
    await rig.analytics.start();
    await until("it fails", () => status().failing);
    assert.match(status().lastError!, /EISDIR/);
    // Also in between its tries.
    for (let looks = 0; looks < 100; looks++, await pause(10)) assert.ok(status().failing);
    await rm(inTheWay, { recursive: true });
    await until("it runs", () => !status().failing);
    await rig.streams.deleteStream(INPUT);
    await until(
      "it is told that there is no stream",
      () => status().lastError?.startsWith("STREAM_NOT_FOUND") === true,
    );
    assert.equal(status().failing, false);
    await rig.close();
  }));

test("more keys than the state may hold stop the statement and say so", () =>
  inFolder(async (dir) => {
    const rig = await openRig(dir, { shards: 1, maxGroups: 10 });
    await rig.put(Array.from({ length: 11 }, (_, i) => ({ sensor: `s${i}`, timeMs: START_MS })));
    await rig.analytics.start();
    await until("it stops", () => rig.analytics.status()[0]!.state === "failed");
    assert.match(rig.analytics.status()[0]!.lastError!, /^ANALYTICS_STATE_FULL: more than 10 keys/);
    await rig.close();
  }));

test("a damaged or missing checkpoint and changed SQL stop the statement instead of guessing", () =>
  inFolder(async (dir) => {
    const first = await openRig(dir, { shards: 1 });
    await first.put([
      { sensor: "a", timeMs: START_MS },
      { sensor: "a", timeMs: START_MS + 15_000 },
    ]);
    await first.analytics.start();
    await until("a window", async () => (await results(first.streams)).length === 1);
    await first.close();
    const file = join(dir, "analytics", "tens", "checkpoint");
    const good = await readFile(file);
    const attempt = async (sql = SQL): Promise<string | undefined> => {
      const rig = await openRig(dir, { shards: 1, sql });
      await rig.analytics.start();
      await until("it stops", () => rig.analytics.status()[0]!.state === "failed");
      const { lastError } = rig.analytics.status()[0]!;
      await rig.close();
      return lastError;
    };
    assert.match(
      (await attempt(SQL.replace("'10' SECOND", "'20' SECOND"))) ?? "",
      /its SQL means something else/,
    );
    const bad = Buffer.from(good);
    bad[bad.length - 5]! ^= 1;
    await writeFile(file, bad);
    assert.match((await attempt()) ?? "", /^ANALYTICS_STATE_LOST: .*checksum/);
    await rm(file);
    assert.match((await attempt()) ?? "", /is missing, though the input is read half-way/);
    await writeFile(file, good);
    const again = await openRig(dir, { shards: 1, sql: `-- only a comment\n${SQL}` });
    await again.analytics.start();
    await again.put([{ sensor: "a", timeMs: START_MS + 25_000 }]);
    await until("the next window", async () => (await results(again.streams)).length === 2);
    await again.close();
  }));

test("a statement that is not supported is refused before anything runs", () =>
  inFolder(async (dir) => {
    await assert.rejects(openRig(dir, { sql: "SELECT 1" }), (error) => {
      assert.ok(error instanceof StatementRefusedError);
      assert.equal(error.message, "analytics tens: line 1, column 1: SELECT is not supported here");
      assert.match(error.hint ?? "", /^accepted: CREATE TABLE/);
      return true;
    });
  }));

async function runKilled(dir: string, step: CommitStep, nth: number): Promise<void> {
  const script = scriptPath("./stopped-statement.ts", import.meta.url);
  const child = spawn(process.execPath, [...nodeFlags, script, dir, step, String(nth)], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const timer = setTimeout(() => child.kill("SIGTERM"), 120_000);
  const [, signal] = (await once(child, "exit")) as [number | null, string | null];
  clearTimeout(timer);
  assert.equal(signal, "SIGKILL", `it never came to "${step}" number ${nth}`);
}
