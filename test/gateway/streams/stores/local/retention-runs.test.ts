/** How a run of retention goes through the streams, and who waits for it. */
import assert from "node:assert/strict";
import test from "node:test";
import type { LocalStream } from "../../../../../gateway/streams/stores/local/local-stream.ts";
import { makeLogMeters } from "../../../../../gateway/streams/stores/local/log/log-meters.ts";
import { StreamLog } from "../../../../../gateway/streams/stores/local/log/stream-log.ts";
import { Retention } from "../../../../../gateway/streams/stores/local/retention.ts";
import { StreamsClosedError } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeLocalPlace } from "./local-place.ts";

/** Some turns of the event loop, with what the disk answers in them. */
async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

test("a stream whose log cannot be cleaned up does not keep the others from it", async () => {
  const cleaned: string[] = [];
  const stream = (name: string, error?: Error) =>
    ({
      definition: { record: { retentionHours: 1 } },
      log: {
        async removeBefore(): Promise<number> {
          if (error !== undefined) throw error;
          cleaned.push(name);
          return 0;
        },
      },
      expireShards: () => Promise.resolve(),
    }) as unknown as LocalStream;
  const retention = new Retention({
    clock: systemClock,
    log: {} as Log,
    meters: makeLogMeters(new Metrics()),
    streams: new Map([
      ["a", stream("a", new Error("the disk is gone"))],
      ["b", stream("b")],
      ["c", stream("c", new StreamsClosedError())],
    ]),
  });
  await assert.rejects(retention.enforce(), /the disk is gone/);
  assert.deepEqual(cleaned, ["b"]);
  await retention.close();
});

test("runs of retention follow one another, and one that fails tells who asked and nobody else", async () => {
  const calls: string[] = [];
  let failing = true;
  const stream = {
    definition: { record: { retentionHours: 1 } },
    log: {
      async removeBefore(): Promise<number> {
        calls.push("began");
        await new Promise((resolve) => setImmediate(resolve));
        calls.push("ended");
        if (failing) throw new Error("the disk is gone");
        return 0;
      },
    },
    expireShards: () => Promise.resolve(),
  } as unknown as LocalStream;
  const retention = new Retention({
    clock: systemClock,
    log: {} as Log,
    meters: makeLogMeters(new Metrics()),
    streams: new Map([["s", stream]]),
  });
  const first = retention.enforce();
  const second = retention.enforce();
  await assert.rejects(first, /the disk is gone/);
  failing = false;
  await second;
  assert.deepEqual(calls, ["began", "ended", "began", "ended"]);
  failing = true;
  const third = assert.rejects(retention.enforce(), /the disk is gone/);
  while (calls.length < 5) await new Promise((resolve) => setImmediate(resolve));
  await retention.settled(stream);
  assert.equal(calls.at(-1), "ended");
  await third;
  await retention.close();
});

test("retention that goes from stream to stream holds up neither a deletion nor a close", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const streams = await place.open();
  for (const name of ["a", "b", "c", "d"])
    await streams.createStream({ name, shards: 2, retentionHours: 24 });

  /** How each removal goes on, in the order in which they began. */
  const goOn: Array<() => void> = [];
  let begun = (): void => {};
  const { removeBefore } = StreamLog.prototype;
  t.mock.method(StreamLog.prototype, "removeBefore", async function (this: StreamLog, cutoffMs: number) {
    await new Promise<void>((resolve) => {
      goOn.push(resolve);
      begun();
    });
    return removeBefore.call(this, cutoffMs);
  });
  const next = () =>
    new Promise<void>((resolve) => {
      begun = resolve;
    });

  const atA = next();
  const run = streams.enforceRetention();
  await atA;
  await streams.deleteStream("b");
  const settled: string[] = [];
  const deleted = streams.deleteStream("a").then(() => settled.push("a"));
  await turns();
  assert.deepEqual([...settled], [], "it is at this one");
  const atC = next();
  goOn[0]!();
  await deleted;
  await atC;
  const closed = streams.close().then(() => settled.push("close"));
  await turns();
  assert.deepEqual([...settled], ["a"]);
  goOn[1]!();
  await Promise.all([run, closed]);
  assert.equal(goOn.length, 2, "it came to a and to c");
  assert.deepEqual(place.logged, []);
});
