/** A disk that hangs: it refuses nothing, and answers at last. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { SILENT_MS } from "../../../../../../gateway/streams/stores/local/log/disk-silence.ts";
import {
  StreamLog,
  type StreamLogOptions,
} from "../../../../../../gateway/streams/stores/local/log/stream-log.ts";
import { eventually } from "../../../../../support/program.ts";
import { makeLocalPlace } from "../local-place.ts";
import { append, type LogPlace, makeLogPlace, watchedDisk } from "./log-place.ts";

const HANGS = "stream s cannot be written: its disk does not answer";
const SAID = "the disk does not answer; nothing is stored meanwhile";
const OVER = "the disk answers again";

/** Calls of the disk go through, or are held while a call of that kind is to hang. */
class HangingDisk {
  readonly disk = watchedDisk((call) => this.#hold(call));
  #hangs: "write" | "fdatasync" | undefined;
  #release: ((error?: Error) => void) | undefined;

  get isHeld(): boolean {
    return this.#release !== undefined;
  }

  hangAt(call: "write" | "fdatasync"): void {
    this.#hangs = call;
  }

  /** @param error what the disk says at last */
  release(error?: Error): void {
    this.#hangs = undefined;
    this.#release?.(error);
    this.#release = undefined;
  }

  async held(): Promise<void> {
    await eventually("the disk is asked", 20_000, async () => this.isHeld || undefined);
  }

  #hold(call: "write" | "fdatasync"): Promise<void> | undefined {
    if (call !== this.#hangs) return undefined;
    return new Promise((resolve, reject) => {
      this.#release = (error) => (error === undefined ? resolve() : reject(error));
    });
  }
}

interface Hanging {
  readonly place: LogPlace;
  readonly log: StreamLog;
  readonly hanging: HangingDisk;
  readonly told: Array<Record<string, unknown>>;
}

async function hangingLog(t: TestContext, more: Partial<StreamLogOptions> = {}): Promise<Hanging> {
  const place = await makeLogPlace();
  const hanging = new HangingDisk();
  const told: Array<Record<string, unknown>> = [];
  const report = (level: string, fields: Record<string, unknown>, message: string): void => {
    told.push({ level, ...fields, message });
  };
  const log = await StreamLog.create(place.options({ disk: hanging.disk, report, ...more }));
  t.after(async () => {
    hanging.release();
    await log.close();
    await place.remove();
  });
  await append(log, 1);
  return { place, log, hanging, told };
}

for (const call of ["write", "fdatasync"] as const) {
  test(`a ${call} that takes ten seconds is told: to who asks, and once to the operator, as is its end`, async (t) => {
    const { place, log, hanging, told } = await hangingLog(t);
    place.passedMs += 100_000;
    hanging.hangAt(call);
    const stored = append(log, 2);
    await hanging.held();
    place.passedMs += SILENT_MS - 1;
    log.lookAtDisk();
    assert.equal(log.refusing, undefined);
    assert.equal(log.writeAgeMs, SILENT_MS - 1);
    assert.deepEqual(told, []);
    place.passedMs += 1;
    assert.equal(log.refusing, HANGS);
    for (let i = 0; i < 3; i++) log.lookAtDisk();
    place.passedMs += 140_000;
    log.lookAtDisk();
    assert.equal(log.refusing, HANGS);
    assert.equal(log.writeAgeMs, 150_000);
    hanging.release();
    assert.equal(await stored, 1);
    assert.equal(log.refusing, undefined);
    assert.equal(log.writeAgeMs, 0);
    log.lookAtDisk();
    assert.deepEqual(told, [
      { level: "error", stream: "s", silentMs: SILENT_MS, message: SAID },
      { level: "warn", stream: "s", silentMs: 150_000, message: OVER },
    ]);
  });
}

test("a segment that cannot be begun for a hanging disk is told as well, and the write behind it begins anew", async (t) => {
  const { place, log, hanging, told } = await hangingLog(t, { segmentBytes: 1_000 });
  await append(log, 2, { bytes: 2_000 });
  hanging.hangAt("write");
  const stored = append(log, 3);
  await hanging.held();
  place.passedMs += SILENT_MS;
  assert.equal(log.refusing, HANGS);
  log.lookAtDisk();
  hanging.release();
  hanging.hangAt("fdatasync");
  await hanging.held();
  hanging.release();
  hanging.hangAt("write");
  await hanging.held();
  // The group's own.
  place.passedMs += SILENT_MS - 1;
  assert.equal(log.refusing, undefined);
  hanging.release();
  await stored;
  assert.equal(log.segments.length, 2);
  assert.deepEqual(
    told.map(({ message }) => message),
    [SAID, OVER],
  );
});

test("a write that hangs and fails in the end is a failure, and the repair may hang as well", async (t) => {
  const { place, log, hanging, told } = await hangingLog(t);
  hanging.hangAt("write");
  const stored = append(log, 2);
  await hanging.held();
  place.passedMs += SILENT_MS;
  log.lookAtDisk();
  hanging.release(Object.assign(new Error("i/o error"), { code: "EIO" }));
  hanging.hangAt("write");
  await assert.rejects(stored, { code: "LOG_WRITE_FAILED" });
  await hanging.held();
  assert.equal(log.refusing, "stream s cannot be written: i/o error");
  place.passedMs += SILENT_MS;
  log.lookAtDisk();
  assert.equal(log.writeAgeMs, SILENT_MS);
  hanging.release();
  await eventually("the repair", 20_000, async () => append(log, 3).catch(() => undefined));
  assert.equal(log.refusing, undefined);
  assert.deepEqual(
    told.map(({ message }) => message),
    [SAID, OVER, "the log cannot be written", SAID, OVER, "the log is repaired and accepts again"],
  );
});

test("a log that has more than it may hold is not failing as long as the disk works on it", async (t) => {
  const { place, log, hanging, told } = await hangingLog(t, { maxWaitingBytes: 20_000 });
  for (let round = 0; round < 20; round++) {
    hanging.hangAt("fdatasync");
    const stored = [append(log, 2 + round, { bytes: 15_000 })];
    await hanging.held();
    await assert.rejects(append(log, 2 + round, { bytes: 15_000 }), { code: "LOG_BUSY" });
    place.passedMs += SILENT_MS / 2;
    log.lookAtDisk();
    assert.equal(log.refusing, undefined);
    hanging.release();
    await Promise.all(stored);
  }
  assert.deepEqual(told, []);
});

test("who is refused as too much waits hears that the disk does not answer, and not to send slower", async (t) => {
  const { place, log, hanging } = await hangingLog(t, { maxWaitingBytes: 20_000 });
  hanging.hangAt("fdatasync");
  const stored = append(log, 2, { bytes: 15_000 });
  await hanging.held();
  const refused = async (hint: string): Promise<void> =>
    assert.rejects(append(log, 3, { bytes: 15_000 }), { code: "LOG_BUSY", hint });
  place.passedMs += SILENT_MS - 1;
  await refused("send slower, or use a faster disk");
  place.passedMs += 1;
  await refused(`${HANGS}; check it and the kernel's log`);
  hanging.release();
  await stored;
});

test("the store tells of it by itself, in its log, its metrics and what it says of the stream", async (t) => {
  const place = await makeLocalPlace();
  const hanging = new HangingDisk();
  place.nowMs = 1_700_000_000_000;
  const streams = await place.open({ disk: hanging.disk });
  t.after(async () => {
    hanging.release();
    await streams.close();
    await place.remove();
  });
  for (const name of ["s", "other"]) await streams.createStream({ name, shards: 1, retentionHours: 24 });
  const ageOf = async (stream: string): Promise<number> => {
    const age = new RegExp(`headwater_log_write_age_seconds\\{stream="${stream}"\\} (.*)`);
    return Number(age.exec(await place.metrics.render())![1]);
  };
  hanging.hangAt("write");
  const stored = streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
  await hanging.held();
  place.nowMs += 12_000;
  assert.equal(streams.describe("s").refusing, HANGS);
  assert.equal(streams.describe("other").refusing, undefined);
  assert.ok((await ageOf("s")) >= 12);
  assert.equal(await ageOf("other"), 0);
  await eventually("a line in the log", 20_000, async () => place.logged.includes(SAID) || undefined);
  hanging.release();
  await stored;
  assert.equal(streams.describe("s").refusing, undefined);
  assert.equal(await ageOf("s"), 0);
  assert.deepEqual(place.logged, [SAID, OVER]);
});
