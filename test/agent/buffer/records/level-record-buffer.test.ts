import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { cp, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import {
  BufferFullError,
  type RecordBuffer,
  RecordInvalidError,
} from "../../../../agent/buffer/record-buffer.ts";
import { GAPS_STREAM, type GapRecord } from "../../../../protocol/topics.ts";
import { eventually } from "../../../support/program.ts";
import { removeFolder } from "../../../support/remove-folder.ts";
import { openBuffer, readAll, record, settled, temporaryFolder, texts } from "./buffer-fixture.ts";

const upTo = (count: number): string[] => Array.from({ length: count }, (_, i) => String(i));

test("records of one commit become one frame a stream, in order", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { commitDelayMs: 20 });
  await Promise.all([
    buffer.append([record("a1"), record("b1", "pi-1/b"), record("e1", "pi-1/a", "events")]),
    buffer.append([record("a2")]),
  ]);
  const frames = await buffer.read(undefined, 1_000_000);
  assert.deepEqual(
    frames.map((frame) => [frame.stream, frame.sequence, frame.recordCount]),
    [
      ["sensors", 1n, 3],
      ["events", 2n, 1],
    ],
  );
  assert.deepEqual(texts(frames), ["a1", "a2", "b1", "e1"]);
  assert.equal(buffer.usage().waitingRecords, 4);
  await buffer.close();
});

test("an unacknowledged record comes back first after a restart, in its own epoch", async (t) => {
  const dir = await temporaryFolder(t);
  const first = await openBuffer(dir);
  await first.append([record("one")]);
  await first.append([record("two")]);
  const [one] = await first.read(undefined, 1);
  await first.ack(one!.epoch, one!.sequence);
  await first.close();
  const second = await openBuffer(dir);
  await second.append([record("three")]);
  const frames = await readAll(second);
  assert.deepEqual(texts(frames), ["two", "three"]);
  assert.equal(frames[0]!.epoch, one!.epoch);
  assert.notEqual(frames[1]!.epoch, one!.epoch);
  assert.equal(frames[1]!.epochStart, frames[0]!.epochStart + 1);
  assert.equal(frames[1]!.sequence, 1n);
  assert.deepEqual(await second.drainedEpochs(), []);
  await second.ack(one!.epoch, frames[0]!.sequence);
  assert.deepEqual(await second.drainedEpochs(), [one!.epoch]);
  await second.forgetEpoch(one!.epoch);
  await second.forgetEpoch(one!.epoch);
  assert.deepEqual(await second.drainedEpochs(), []);
  assert.equal(second.usage().waitingRecords, 1);
  await second.close();
  const third = await openBuffer(dir);
  assert.deepEqual(texts(await readAll(third)), ["three"]);
  await third.close();
});

test("a mark is stored with its records and survives a restart", async (t) => {
  const dir = await temporaryFolder(t);
  const first = await openBuffer(dir);
  await first.append([{ ...record("x"), mark: { source: "serial/board", value: Buffer.from("1") } }]);
  await first.setMarks([{ source: "mqtt/in/a", value: Buffer.from("2") }]);
  await first.close();
  const second = await openBuffer(dir);
  assert.equal(Buffer.from((await second.mark("serial/board"))!).toString(), "1");
  assert.deepEqual(await second.marks("mqtt/in/"), ["mqtt/in/a"]);
  await second.setMarks([{ source: "mqtt/in/a", value: Buffer.alloc(0) }]);
  assert.equal(await second.mark("mqtt/in/a"), undefined);
  await second.close();
});

test("a full buffer pauses its sources until room returns, and keeps their order", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 4_000 });
  const big = "x".repeat(1_500);
  await buffer.append([record(`1${big}`)]);
  await buffer.append([record(`2${big}`)]);
  let stored = false;
  const third = buffer.append([record(`3${big}`)]).then(() => {
    stored = true;
  });
  const fourth = buffer.append([record("4")]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(stored, false);
  const [first] = await buffer.read(undefined, 1);
  await buffer.ack(first!.epoch, first!.sequence);
  await Promise.all([third, fourth]);
  assert.deepEqual(
    texts(await readAll(buffer)).map((text) => text[0]),
    ["2", "3", "4"],
  );
  await buffer.close();
});

test("a full buffer that rejects stores nothing and says so", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 2_000, whenFull: "reject" });
  await buffer.append([record("y".repeat(1_500))]);
  await assert.rejects(buffer.append([record("z".repeat(1_500))]), BufferFullError);
  assert.equal(buffer.usage().waitingRecords, 1);
  await buffer.close();
});

test("a full buffer that drops its oldest reports each gap", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 8_000, whenFull: "drop-oldest" });
  for (let i = 0; i < 20; i++)
    await buffer.append([record(`${String(i).padStart(2, "0")}${"x".repeat(1_000)}`)]);
  const frames = await readAll(buffer);
  const kept = texts(frames, "sensors").map((text) => Number(text.slice(0, 2)));
  assert.equal(kept.at(-1), 19);
  assert.deepEqual(
    kept,
    [...kept].sort((a, b) => a - b),
  );
  const gaps = texts(frames, GAPS_STREAM).map(
    (text) => JSON.parse(text) as { records: number; stream: string },
  );
  assert.ok(gaps.every((gap) => gap.stream === "sensors" || gap.stream === GAPS_STREAM));
  assert.ok(buffer.usage().droppedRecords >= 20 - kept.length);
  assert.ok(buffer.usage().waitingBytes <= 8_000 + 2_000);
  await buffer.close();
});

test("frames that are dropped while they are read are no damage", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 100_000, whenFull: "drop-oldest" });
  for (let i = 0; i < 80; i++) await buffer.append([record("x".repeat(1_000))]);
  const dropping = (async () => {
    for (let i = 0; i < 300; i++) await buffer.append([record("y".repeat(1_000))]);
  })();
  let ended = false;
  void dropping.then(() => {
    ended = true;
  });
  const reasons: string[] = [];
  while (!ended) {
    for (const text of texts(await buffer.read(undefined, 100_000), GAPS_STREAM))
      reasons.push((JSON.parse(text) as { reason: string }).reason);
  }
  await dropping;
  assert.ok(buffer.usage().droppedRecords > 200);
  assert.deepEqual(
    reasons.filter((reason) => !reason.startsWith("buffer full")),
    [],
  );
  await buffer.close();
});

test("what waits for room is bounded; beyond it an append is refused", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 2_000_000 });
  const large = "x".repeat(1_000_000);
  await buffer.append([record(large)]);
  const asked = Array.from({ length: 20 }, () => buffer.append([record(large)]));
  const outcomes = asked.map((append) =>
    append.then(
      () => "stored",
      (error: { code: string }) => error.code,
    ),
  );
  assert.equal(await outcomes.at(-1), "BUFFER_FULL");
  assert.equal(buffer.refuses([record(large)]), true);
  const ended = new AbortController();
  void Promise.all(outcomes).then(() => ended.abort());
  while (!ended.signal.aborted) {
    await buffer.waiting(undefined, ended.signal);
    for (const frame of await buffer.read(undefined, 1)) await buffer.ack(frame.epoch, frame.sequence);
  }
  assert.equal((await Promise.all(outcomes)).filter((outcome) => outcome === "stored").length, 8);
  assert.equal(buffer.refuses([record(large)]), false);
  await buffer.close();
});

test("waiting wakes for a frame behind a place, or when it is given up", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const never = new AbortController();
  const woken = buffer.waiting(undefined, never.signal);
  await buffer.append([record("a")]);
  await woken;
  const [frame] = await buffer.read(undefined, 1);
  const giveUp = new AbortController();
  const waiting = buffer.waiting(frame, giveUp.signal);
  giveUp.abort();
  await waiting;
  const next = buffer.waiting(frame, never.signal);
  await buffer.append([record("b")]);
  await next;
  assert.deepEqual(texts(await buffer.read(frame, 1)), ["b"]);
  await buffer.close();
});

test("a record that no stream could hold is refused by name", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  await assert.rejects(buffer.append([record("")]), RecordInvalidError);
  await assert.rejects(buffer.append([record("x".repeat(1_048_577))]), RecordInvalidError);
  await assert.rejects(buffer.append([record("x", "")]), RecordInvalidError);
  await assert.rejects(buffer.append([record("x", "k", "no stream/")]), RecordInvalidError);
  assert.equal(buffer.usage().waitingRecords, 0);
  await buffer.close();
});

test("what was acknowledged returns to the disk", async (t) => {
  const dir = await temporaryFolder(t);
  const buffer = await openBuffer(dir);
  for (let i = 0; i < 24; i++) {
    await buffer.append([{ ...record("x"), payload: randomBytes(1_000_000) }]);
  }
  await settled(buffer, dir);
  assert.ok((await diskBytes(dir)) > 24_000_000);
  for (const frame of await readAll(buffer)) await buffer.ack(frame.epoch, frame.sequence);
  assert.equal(buffer.usage().waitingBytes, 0);
  // The part that is written to is all that may stay; the others go in the background.
  await diskBytesFall(dir, 5_500_000);
  await buffer.close();
  assert.ok((await diskBytes(dir)) < 100_000, `${await diskBytes(dir)} bytes on disk after the end`);
});

/** As `du` counts. @throws where a part comes or goes meanwhile, as they do behind the writes */
async function diskBytes(dir: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    bytes += (await stat(join(entry.parentPath, entry.name))).blocks * 512;
  }
  return bytes;
}

/** Resolves once the folder takes no more than that: parts go in their own time. */
async function diskBytesFall(dir: string, below: number): Promise<void> {
  await eventually(`less than ${below} bytes are on disk`, 60_000, async () => {
    const bytes = await diskBytes(dir);
    if (bytes >= below) throw new Error(`${bytes} bytes on disk`);
    return true;
  });
}

interface Kept {
  readonly texts: string[];
  readonly gaps: GapRecord[];
}

async function keptOf(buffer: RecordBuffer, stream: string): Promise<Kept> {
  const frames = await readAll(buffer);
  const gaps = texts(frames, GAPS_STREAM).map((text) => JSON.parse(text) as GapRecord);
  return { texts: texts(frames, stream).map((text) => text.trim()), gaps };
}

const sumOf = (gaps: readonly GapRecord[], stream: string): number =>
  gaps.filter((gap) => gap.stream === stream).reduce((sum, gap) => sum + (gap.records ?? 0), 0);

test("drop-oldest begins with the stream that matters least, and every record is kept or told of", async (t) => {
  const dir = await temporaryFolder(t);
  const options = {
    maxBytes: 200_000,
    partBytes: 16_384,
    whenFull: "drop-oldest",
    priorities: { alarms: 10, debug: -1 },
  } as const;
  const count = { alarms: 0, sensors: 0, debug: 0 };
  let buffer = await openBuffer(dir, options);
  for (let i = 0; i < 600; i++) {
    const stream = i % 20 === 0 ? "alarms" : i % 2 === 0 ? "sensors" : "debug";
    await buffer.append([record(String(count[stream]++).padEnd(800), "k", stream)]);
    if (i === 300) {
      await buffer.close();
      buffer = await openBuffer(dir, options);
    }
  }
  for (let again = 0; again < 2; again++) {
    const alarms = await keptOf(buffer, "alarms");
    assert.deepEqual(
      alarms.texts.map(Number),
      Array.from({ length: count.alarms }, (_, i) => i),
    );
    for (const stream of ["sensors", "debug"] as const) {
      const { texts: kept, gaps } = await keptOf(buffer, stream);
      const numbers = kept.map(Number);
      assert.deepEqual(
        numbers,
        [...numbers].sort((a, b) => a - b),
      );
      assert.equal(sumOf(gaps, stream) + numbers.length, count[stream], stream);
      for (const { reason, fromUs, toUs } of gaps)
        assert.ok(reason.startsWith("buffer full") && fromUs <= toUs);
    }
    const kept = [
      (await keptOf(buffer, "sensors")).texts.length,
      (await keptOf(buffer, "debug")).texts.length,
    ];
    assert.ok(kept[0]! > kept[1]!, `${kept} of sensors and debug`);
    assert.ok(buffer.usage().waitingBytes <= 200_000);
    await diskBytesFall(dir, 200_000 + 40 * 32_768);
    await buffer.close();
    buffer = await openBuffer(dir, options);
  }
  // And all of it drains.
  for (const frame of await readAll(buffer)) await buffer.ack(frame.epoch, frame.sequence);
  assert.equal(buffer.usage().waitingRecords, 0);
  assert.equal(buffer.usage().waitingBytes, 0);
  await buffer.close();
});

test("reports of gaps outlive the parts that they stand in", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), {
    maxBytes: 60_000,
    partBytes: 8_192,
    whenFull: "drop-oldest",
  });
  const unplugged = {
    device: "pi-1",
    sensor: "board",
    time: "",
    stream: "sensors",
    reason: "unplugged",
    fromUs: 1,
    toUs: 2,
  };
  await buffer.append([record(JSON.stringify(unplugged), "pi-1/board", GAPS_STREAM)]);
  for (let i = 0; i < 500; i++) await buffer.append([record(String(i).padEnd(1_000))]);
  const { texts: kept, gaps } = await keptOf(buffer, "sensors");
  assert.equal(sumOf(gaps, "sensors") + kept.length, 500);
  assert.equal(gaps.filter((gap) => gap.reason === "unplugged").length, 1);
  assert.ok(gaps.length < 40, `${gaps.length} reports`);
  await buffer.close();
});

test("what is older than allowed is dropped and told of; times before the clock was set are no ages", async (t) => {
  const dir = await temporaryFolder(t);
  let nowUs = 1_000_000;
  const clock = { nowUs: () => nowUs, monotonicMs: () => performance.now() };
  const options = { clock, maxAgeHours: 1 };
  let buffer = await openBuffer(dir, options);
  await buffer.append([record("unset clock")]);
  nowUs = 1_800_000_000_000_000;
  await buffer.close();
  buffer = await openBuffer(dir, options);
  await buffer.append([record("old")]);
  assert.deepEqual((await keptOf(buffer, "sensors")).texts, ["unset clock", "old"]);
  const [first] = await buffer.read(undefined, 1);
  await buffer.ack(first!.epoch, first!.sequence);
  await buffer.close();
  nowUs += 3_700_000_000;
  buffer = await openBuffer(dir, options);
  await buffer.append([record("new")]);
  const { texts: kept, gaps } = await keptOf(buffer, "sensors");
  assert.deepEqual(kept, ["new"]);
  assert.deepEqual(
    gaps.map(({ stream, records, fromUs }) => [stream, records, fromUs]),
    [["sensors", 1, 1_800_000_000_000_000]],
  );
  await buffer.close();
});

test("what was stored before something that is too old is too old, also by a clock that was not set", async (t) => {
  const dir = await temporaryFolder(t);
  let nowUs = 1_000_000;
  const clock = { nowUs: () => nowUs, monotonicMs: () => performance.now() };
  const options = { clock, maxAgeHours: 1 };
  let buffer = await openBuffer(dir, options);
  await buffer.append([record("unset clock")]);
  nowUs = 1_800_000_000_000_000;
  await buffer.close();
  buffer = await openBuffer(dir, options);
  await buffer.append([record("old")]);
  await buffer.close();
  nowUs += 3_700_000_000;
  buffer = await openBuffer(dir, options);
  await buffer.append([record("new")]);
  const { texts: kept, gaps } = await keptOf(buffer, "sensors");
  assert.deepEqual(kept, ["new"]);
  assert.deepEqual(
    gaps.map(({ stream, records }) => [stream, records]),
    [
      ["sensors", 1],
      ["sensors", 1],
    ],
  );
  await buffer.close();
});

test("a new epoch begins between two commits; the old one is drained once its last frame is acknowledged", async (t) => {
  const dir = await temporaryFolder(t);
  let buffer = await openBuffer(dir, { commitRecords: 1 });
  const before = buffer.usage().currentEpoch;
  const appends: Promise<void>[] = [];
  let begun: Promise<bigint> | undefined;
  for (let n = 0; n < 100; n++) {
    appends.push(buffer.append([record(String(n))]));
    if (n === 50) begun = buffer.beginEpoch();
    if (n % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(appends);
  const epoch = await begun!;
  assert.equal(buffer.usage().currentEpoch, epoch);
  assert.equal(buffer.usage().openEpochs, 2);
  const frames = await readAll(buffer);
  assert.deepEqual(texts(frames), upTo(100));
  const [old, young] = [before, epoch].map((each) => frames.filter((frame) => frame.epoch === each));
  for (const each of [old!, young!]) {
    assert.deepEqual(
      each.map(({ sequence }) => sequence),
      each.map((_, i) => BigInt(i + 1)),
    );
  }
  await buffer.append([record("100")]);
  assert.deepEqual(await buffer.drainedEpochs(), []);
  await buffer.ack(before, old!.at(-1)!.sequence);
  assert.deepEqual(await buffer.drainedEpochs(), [before]);
  await buffer.forgetEpoch(before);
  await buffer.close();
  buffer = await openBuffer(dir);
  assert.deepEqual(texts(await readAll(buffer)), upTo(101).slice(old!.length));
  await buffer.close();
});

test("an epoch that was begun and not used is drained after the next start, and its place is not used again", async (t) => {
  const dir = await temporaryFolder(t);
  let buffer = await openBuffer(dir);
  await buffer.append([record("a")]);
  const unused = await buffer.beginEpoch();
  await settled(buffer, dir);
  const copy = `${dir}-copy`;
  t.after(() => removeFolder(copy));
  await cp(dir, copy, { recursive: true });
  await buffer.close();
  buffer = await openBuffer(copy);
  await buffer.append([record("b")]);
  const frames = await readAll(buffer);
  assert.deepEqual(texts(frames), ["a", "b"]);
  assert.deepEqual(
    frames.map(({ epochStart }) => epochStart),
    [1, 3],
  );
  assert.deepEqual(await buffer.drainedEpochs(), [unused]);
  await buffer.close();
});

test("what was acknowledged ahead of others is no loss when it is dropped", async (t) => {
  const options = { maxBytes: 100_000, partBytes: 8_192, whenFull: "drop-oldest" } as const;
  const buffer = await openBuffer(await temporaryFolder(t), options);
  for (let i = 0; i < 300; i++) {
    await buffer.append([record(String(i).padEnd(800), "k", i % 2 === 0 ? "sensors" : "live")]);
    if (i % 2 === 0) continue;
    const last = (await readAll(buffer)).findLast(({ stream }) => stream === "live")!;
    assert.equal(buffer.isAhead(last), false);
    buffer.ackAhead(last);
    assert.equal(buffer.isAhead(last), true);
  }
  const { texts: kept, gaps } = await keptOf(buffer, "sensors");
  assert.equal(sumOf(gaps, "sensors") + kept.length, 150);
  assert.ok(kept.length < 150);
  assert.equal(sumOf(gaps, "live"), 0);
  assert.equal(buffer.usage().droppedRecords, 150 - kept.length);
  await buffer.close();
});
