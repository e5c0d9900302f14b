/** What is made anew under a name is dated behind what had it, in every store; part of the streams' contract. */
import assert from "node:assert/strict";
import type { StreamDescription, Streams } from "../../gateway/streams/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Fact } from "./stream-records.ts";

const NOON_MS = 1_790_000_000_000;
const HOUR_MS = 3_600_000;

/** The time of day stands still but when it is set. */
const stillClock = () => {
  const clock = { ...systemClock, nowMs: NOON_MS + 400, nowUs: () => clock.nowMs * 1000 };
  return clock;
};

const make = (streams: Streams, shards = 1, name = "s") =>
  streams.createStream({ name, shards, retentionHours: 24 });

const secondsIn = ({ createdMs, shardList }: StreamDescription): number[] =>
  [createdMs, ...shardList.map((shard) => shard.createdMs)].map((ms) => Math.floor(ms / 1000));

function assertBehind(later: StreamDescription, earlier: StreamDescription): void {
  const [from, to] = [Math.min(...secondsIn(later)), Math.max(...secondsIn(earlier))];
  assert.ok(from > to, `${from} is not behind ${to}`);
}

async function registeredSecond(streams: Streams): Promise<number> {
  const { createdMs } = await streams.registerReader("s", "r", {});
  assert.deepEqual(
    streams.registeredReaders("s").map((reader) => reader.createdMs),
    [createdMs],
  );
  return Math.floor(createdMs / 1000);
}

export function madeAnewContract(fact: Fact): void {
  fact("a stream made anew within the second has none of its predecessor's", async (_, reopen) => {
    const streams = await reopen({ clock: stillClock() });
    await make(streams);
    await streams.splitShard("s", "shardId-000000000000", 2n ** 127n);
    let earlier = streams.describe("s");
    for (let i = 0; i < 3; i++) {
      await streams.deleteStream("s");
      const again = await make(streams, 3);
      assertBehind(again, earlier);
      assert.deepEqual(streams.describe("s"), again);
      earlier = again;
    }
    assert.equal((await make(streams, 1, "other")).createdMs, NOON_MS + 400);
  });

  fact("nor has a reader, of the same stream or of one made anew", async (_, reopen) => {
    const clock = stillClock();
    const streams = await reopen({ clock });
    await make(streams);
    const seconds = [await registeredSecond(streams)];
    await streams.deregisterReader("s", "r");
    seconds.push(await registeredSecond(streams));
    // What is only changed keeps its date.
    await streams.updateReader("s", "r", { a: "1" });
    assert.equal(streams.registeredReaders("s")[0]!.createdMs, seconds[1]! * 1000);
    await streams.deleteStream("s");
    await make(streams);
    seconds.push(await registeredSecond(streams));
    const first = NOON_MS / 1000;
    assert.deepEqual(seconds, [first, first + 1, first + 2]);
    await streams.deregisterReader("s", "r");
    clock.nowMs += 60_000;
    assert.equal(await registeredSecond(streams), first + 60);
  });

  fact("nor either where the clock was set back meanwhile", async (_, reopen) => {
    const clock = stillClock();
    const streams = await reopen({ clock });
    const earlier = await make(streams);
    const second = await registeredSecond(streams);
    clock.nowMs -= HOUR_MS;
    await streams.deleteStream("s");
    clock.nowMs += 10_000;
    const again = await make(streams);
    assertBehind(again, earlier);
    assert.ok((await registeredSecond(streams)) > second);
    clock.nowMs += HOUR_MS;
    await streams.deleteStream("s");
    assert.equal((await make(streams)).createdMs, clock.nowMs);
  });
}
