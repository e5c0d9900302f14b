/** A local store that is closed while much is under way: all of it ends first, one way or the other. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { LocalStream } from "../../../../../gateway/streams/stores/local/local-stream.ts";
import { StreamLog } from "../../../../../gateway/streams/stores/local/log/stream-log.ts";
import type { HeadwaterError } from "../../../../../runtime/errors.ts";
import { makeLocalPlace } from "./local-place.ts";

/** Some turns of the event loop, with what the disk answers in them. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

test("streams that are being made, deleted and opened by consumers are so, or are refused, before a close ends", async (t) => {
  for (let delay = 0; delay < 40; delay += 2) {
    const place = await makeLocalPlace();
    t.after(() => place.remove());
    let streams = await place.open();
    await streams.createStream({ name: "old", shards: 2, retentionHours: 24 });
    await streams.createStream({ name: "doomed", shards: 2, retentionHours: 24 });
    let settled = 0;
    const works = [
      streams.createStream({ name: "new", shards: 2, retentionHours: 24 }),
      streams.openConsumer("old", "c"),
      streams.deleteStream("doomed"),
    ];
    for (const work of works) {
      void work
        .catch(() => undefined)
        .finally(() => {
          settled++;
        });
    }
    const outcomes = Promise.allSettled(works);
    await turns(delay);
    await streams.close();
    await Promise.resolve();
    assert.equal(settled, works.length, `with a delay of ${delay}`);
    for (const outcome of await outcomes) {
      if (outcome.status === "fulfilled") continue;
      const { code } = outcome.reason as HeadwaterError;
      assert.ok(["STREAMS_CLOSED", "STREAM_NOT_FOUND"].includes(code), `${code} with a delay of ${delay}`);
    }
    const [made, , gone] = await outcomes;
    streams = await place.open();
    const expected = [
      ...(gone!.status === "fulfilled" ? [] : ["doomed"]),
      ...(made!.status === "fulfilled" ? ["new"] : []),
      "old",
    ];
    assert.deepEqual(streams.listStreams(), expected);
    assert.equal((await readdir(join(place.dir, "logs"))).length, expected.length);
    await streams.close();
    assert.deepEqual(place.logged, []);
  }
});

test("a stream that waits for the disk keeps no others from being opened, or closed, meanwhile", async (t) => {
  const place = await makeLocalPlace();
  t.after(() => place.remove());
  const names = ["a", "b", "c"];
  let streams = await place.open();
  for (const name of names) await streams.createStream({ name, shards: 2, retentionHours: 24 });

  /** The first to come begins when the others have ended. */
  const lastBegun = () => {
    let begun = 0;
    let ended = 0;
    let free = (): void => {};
    const others = new Promise<void>((resolve) => {
      free = resolve;
    });
    return async <T>(work: () => Promise<T>): Promise<T> => {
      if (begun++ === 0) await others;
      const done = await work();
      if (++ended === names.length - 1) free();
      return done;
    };
  };
  const { close } = LocalStream.prototype;
  const closing = lastBegun();
  const closes = t.mock.method(LocalStream.prototype, "close", function (this: LocalStream) {
    return closing(() => close.call(this));
  });
  await streams.close();
  assert.equal(closes.mock.callCount(), names.length);
  closes.mock.restore();

  const open = StreamLog.open.bind(StreamLog);
  const opening = lastBegun();
  const opens = t.mock.method(StreamLog, "open", (...options: Parameters<typeof open>) =>
    opening(() => open(...options)),
  );
  streams = await place.open();
  assert.equal(opens.mock.callCount(), names.length);
  assert.deepEqual(streams.listStreams(), names);
  await streams.close();
  assert.deepEqual(place.logged, []);
});
