/** Groups on their way to a disk that is watched, slow, or broken. */
import assert from "node:assert/strict";
import test from "node:test";
import { NEWS_MS } from "../../../../../../gateway/streams/refusal.ts";
import { type Disk, realDisk } from "../../../../../../gateway/streams/stores/local/log/segment-file.ts";
import { StreamLog } from "../../../../../../gateway/streams/stores/local/log/stream-log.ts";
import { append, type LogPlace, makeLogPlace, watchedDisk } from "./log-place.ts";

async function withPlace(body: (place: LogPlace) => Promise<void>): Promise<void> {
  const place = await makeLogPlace();
  try {
    await body(place);
  } finally {
    await place.remove();
  }
}

test("the appends of one turn are one write and one fdatasync, and none hears before it", () =>
  withPlace(async (place) => {
    const calls: string[] = [];
    const log = await StreamLog.create(place.options({ disk: watchedDisk((call) => void calls.push(call)) }));
    calls.length = 0;
    const heard = [1, 2, 3].map((n) => append(log, n).then(() => calls.push(`heard ${n}`)));
    assert.deepEqual(calls, []);
    await Promise.all(heard);
    assert.deepEqual(calls, ["write", "fdatasync", "heard 1", "heard 2", "heard 3"]);
    await log.close();
  }));

test("no group is written before the one in front of it is synced; what comes meanwhile is one group", () =>
  withPlace(async (place) => {
    const calls: string[] = [];
    let sync: (() => void) | undefined;
    let asked: (() => void) | undefined;
    const disk = watchedDisk((call) => {
      calls.push(call);
      if (asked === undefined || call !== "fdatasync") return;
      asked();
      return new Promise((resolve) => {
        sync = resolve;
      });
    });
    const log = await StreamLog.create(place.options({ disk }));
    calls.length = 0;
    const atTheDisk = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const first = append(log, 1);
    await atTheDisk;
    const later = [append(log, 2)];
    await new Promise((resolve) => setImmediate(resolve));
    later.push(append(log, 3));
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(calls, ["write", "fdatasync"]);
    assert.equal(log.next(0), 0);
    asked = undefined;
    sync!();
    assert.equal(await first, 0);
    assert.deepEqual(await Promise.all(later), [1, 2]);
    assert.deepEqual(calls, ["write", "fdatasync", "write", "fdatasync"]);
    await log.close();
  }));

test("a barrier hears once all in front of it is on disk, and writes nothing by itself", () =>
  withPlace(async (place) => {
    const calls: string[] = [];
    const log = await StreamLog.create(place.options({ disk: watchedDisk((call) => void calls.push(call)) }));
    const barrier = () =>
      new Promise<void>((resolve, reject) => log.barrier({ done: resolve, failed: reject }));
    await append(log, 1);
    calls.length = 0;
    await barrier();
    assert.deepEqual(calls, []);
    void append(log, 2);
    await barrier();
    assert.equal(log.next(0), 2);
    await log.close();
  }));

/** Resolves once everything that is ready to run has run, files included, until `holds`. */
async function until(holds: () => boolean): Promise<void> {
  const end = performance.now() + 60_000;
  while (!holds()) {
    assert.ok(performance.now() < end, "it never came to hold");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("a repair that fails is tried again at the next append, but not before a pause", () =>
  withPlace(async (place) => {
    let failing = false;
    let tries = 0;
    const disk = watchedDisk(() => {
      if (!failing) return;
      tries++;
      throw Object.assign(new Error("i/o error"), { code: "EIO" });
    });
    const log = await StreamLog.create(place.options({ disk }));
    await append(log, 1);
    failing = true;
    await assert.rejects(append(log, 2), { code: "LOG_WRITE_FAILED" });
    await until(() => place.logged.includes("the log cannot be repaired yet"));
    assert.equal(tries, 2);
    await assert.rejects(append(log, 2), { code: "LOG_WRITE_FAILED" });
    place.passedMs += 499;
    await assert.rejects(append(log, 2), { code: "LOG_WRITE_FAILED" });
    // Time enough for a repair to get to the disk, had one begun.
    for (let i = 0; i < 5; i++) await place.copy();
    assert.equal(tries, 2);
    failing = false;
    place.passedMs += 1;
    await assert.rejects(append(log, 2), { code: "LOG_WRITE_FAILED" });
    await until(() => place.logged.includes("the log is repaired and accepts again"));
    assert.deepEqual(place.logged, [
      "the log cannot be written",
      "the log cannot be repaired yet",
      "the log is repaired and accepts again",
    ]);
    // The same places as if the refused had never been.
    assert.equal(await append(log, 2), 1);
    assert.equal(log.segments.length, 2);
    await log.close();
  }));

test("a disk that takes small writes and refuses large ones makes neither segments nor repairs without number", () =>
  withPlace(async (place) => {
    let room = Number.POSITIVE_INFINITY;
    const disk: Disk = {
      ...realDisk,
      async write(file, bytes, position) {
        if (bytes.length > room) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
        await realDisk.write(file, bytes, position);
      },
    };
    const log = await StreamLog.create(place.options({ disk }));
    await append(log, 1);
    room = 1_000;
    for (let sequence = 2; sequence < 60; sequence++) {
      await assert.rejects(append(log, sequence, { bytes: 2_000 }), { code: "LOG_FULL" });
      place.passedMs += 50;
      // Time enough for a repair.
      for (let i = 0; i < 3; i++) await place.copy();
    }
    const repairs = place.logged.filter((message) => message.includes("repaired")).length;
    // In 2,900 ms.
    assert.ok(repairs <= 8, `${repairs} repairs`);
    assert.ok(log.segments.length <= 3, `${log.segments.length} segments`);
    place.passedMs += 500;
    let offset: number | undefined;
    while (offset === undefined) {
      offset = await append(log, 60).catch(() => undefined);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(offset, 1);
    room = Number.POSITIVE_INFINITY;
    assert.equal(await append(log, 62, { bytes: 2_000 }), 2);
    await log.close();
    const reopened = await StreamLog.open(place.options());
    assert.equal(reopened.next(0), 3);
    assert.deepEqual(
      place.logged.filter((message) => message.includes("missing") || message.includes("damaged")),
      [],
    );
    await reopened.close();
  }));

test("a crash between write and fdatasync leaves entries whose repetition is recognised", () =>
  withPlace(async (place) => {
    let failing = false;
    let crashed = "";
    const disk = watchedDisk(async (call) => {
      if (!failing || call !== "fdatasync") return;
      crashed ||= await place.copy();
      throw Object.assign(new Error("i/o error"), { code: "EIO" });
    });
    const log = await StreamLog.create(place.options({ disk }));
    await append(log, 1);
    failing = true;
    await assert.rejects(append(log, 2), { code: "LOG_WRITE_FAILED" });
    assert.equal(log.producers.judgeFrame("d", 7n, 2n), "new");
    failing = false;
    await log.close();

    const reopened = await StreamLog.open(place.options({ folder: crashed }));
    assert.equal(reopened.producers.judgeFrame("d", 7n, 2n), "duplicate");
    assert.equal(reopened.next(0), 2);
    await reopened.close();
  }));

test("a close waits for a repair that is under way", () =>
  withPlace(async (place) => {
    let calls = 0;
    let release: (() => void) | undefined;
    const disk = watchedDisk((call) => {
      calls++;
      if (calls === 3) throw Object.assign(new Error("i/o error"), { code: "EIO" });
      if (calls !== 4) return;
      assert.equal(call, "write");
      return new Promise((resolve) => {
        release = resolve;
      });
    });
    const log = await StreamLog.create(place.options({ disk }));
    await assert.rejects(append(log, 1), { code: "LOG_WRITE_FAILED" });
    let closed = false;
    const closing = log.close().then(() => {
      closed = true;
    });
    await until(() => release !== undefined);
    for (let i = 0; i < 5; i++) await place.copy();
    assert.equal(closed, false);
    release!();
    await closing;
    assert.equal(place.logged.at(-1), "the log is repaired and accepts again");
  }));

test("a close waits for what was appended, and refuses what comes behind it", () =>
  withPlace(async (place) => {
    const log = await StreamLog.create(place.options());
    const appended = [append(log, 1), append(log, 2, { count: 5 })];
    const closed = log.close();
    await assert.rejects(append(log, 3), { code: "STREAMS_CLOSED" });
    await closed;
    assert.deepEqual(await Promise.all(appended), [0, 1]);
    const reopened = await StreamLog.open(place.options());
    assert.equal(reopened.next(0), 6);
    assert.equal(reopened.producers.judgeFrame("d", 7n, 2n), "duplicate");
    await reopened.close();
  }));

test("why appends are refused is told while the log is not sound, and as news once it is", () =>
  withPlace(async (place) => {
    let room = Number.POSITIVE_INFINITY;
    const disk: Disk = {
      ...realDisk,
      async write(file, bytes, position) {
        if (bytes.length > room) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
        await realDisk.write(file, bytes, position);
      },
    };
    const log = await StreamLog.create(place.options({ disk }));
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
    const repaired = async (times: number): Promise<void> => {
      while (place.logged.filter((message) => message.includes("repaired")).length < times) {
        place.passedMs += 1;
        await log.removeBefore(0);
        await turn();
      }
    };
    const refused = async (): Promise<void> => {
      await assert.rejects(append(log, 2, { bytes: 2_000 }), { code: "LOG_FULL" });
      assert.match(log.refusing!, /^stream s cannot/);
    };
    await append(log, 1);
    assert.equal(log.refusing, undefined);
    room = 0;
    await refused();
    place.passedMs += 10 * NEWS_MS;
    assert.match(log.refusing!, /^stream s cannot/);
    // Sound again, but it takes no more than before.
    room = 1_000;
    await repaired(1);
    assert.equal(log.refusing, undefined);
    await refused();
    await repaired(2);
    place.passedMs += NEWS_MS / 2;
    assert.match(log.refusing!, /^stream s cannot/);
    place.passedMs += NEWS_MS / 2;
    assert.equal(log.refusing, undefined);
    await refused();
    room = Number.POSITIVE_INFINITY;
    await repaired(3);
    await append(log, 3);
    assert.equal(log.refusing, undefined);
    await log.close();
  }));
