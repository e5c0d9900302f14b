import assert from "node:assert/strict";
import test from "node:test";
import { RecentReadings } from "../../../gateway/api/console/recent-readings.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { aggregate } from "../../support/kpl-aggregate.ts";
import { makeLocalPlace } from "../streams/stores/local/local-place.ts";

/** Each test waits for the disk a dozen times and more, which may stall for seconds each time. */
const LIMIT = { timeout: 240_000 };
/** In seconds: longer than any of them takes. */
const AN_HOUR = 3_600;

test("readings are followed through a split, and into what the KPL packed", LIMIT, async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  const readings = new RecentReadings(streams, systemClock);
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const put = (n: number) =>
      streams.append("s", [
        {
          partitionKey: "pack",
          data: aggregate([{ partitionKey: "k", data: Buffer.from(JSON.stringify({ n })) }]),
        },
      ]);
    await put(1);
    const seen: number[] = [];
    let wake = (): void => {};
    const end = await readings.follow("s", "k", (fresh) => {
      seen.push(...(fresh ?? []).map((reading) => reading.values.n!));
      wake();
    });
    await put(2);
    await streams.splitShard("s", streams.describe("s").shardList[0]!.shardId, 2n ** 127n);
    await put(3);
    while (seen.length < 2) await new Promise<void>((resolve) => (wake = resolve));
    assert.deepEqual(seen, [2, 3]);
    end();
    const { rows } = await readings.readings("s", "k", AN_HOUR);
    assert.deepEqual(
      rows.map((row) => row.values.n),
      [1, 2, 3],
    );
  } finally {
    readings.close();
    await streams.close();
    await place.remove();
  }
});

test("records whose fields each have names of their own are kept without them", LIMIT, async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  const readings = new RecentReadings(streams, systemClock);
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const record = (n: number, names: number) => {
      const fields: [string, number][] = [["celsius", n]];
      for (let i = 0; i < names; i++) fields.push([`${n}-${i}`.padEnd(120, "x"), i]);
      return { partitionKey: `key ${n % 5}`, data: Buffer.from(JSON.stringify(Object.fromEntries(fields))) };
    };
    const records = 2_000;
    for (let n = 0; n < records; n += 100) {
      await streams.append(
        "s",
        Array.from({ length: 100 }, (_, i) => record(n + i, 30)),
      );
    }
    for (const { fields } of await readings.sensors("s")) assert.equal(fields.length, 64);
    const { rows } = await readings.readings("s", "key 0", AN_HOUR);
    assert.equal(rows.length, records / 5);
    assert.equal(rows.at(-1)!.values.celsius, 1_995);
    assert.deepEqual(Object.keys(rows.at(-1)!.values), ["celsius"]);
  } finally {
    readings.close();
    await streams.close();
    await place.remove();
  }
});

test("more readings of a key than a call takes arguments reach whoever follows it", LIMIT, async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  const readings = new RecentReadings(streams, systemClock);
  try {
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    // As many as fit into 1 MiB; in two runs, as the records that hold them have keys of their own.
    const packed = 140_000;
    const data = aggregate(
      Array.from({ length: packed }, () => ({ partitionKey: "k", data: Buffer.from("1") })),
    );
    let seen = 0;
    let tell = (_what: string): void => {};
    const told = new Promise<string>((resolve) => (tell = resolve));
    await readings.follow("s", "k", (fresh) => {
      seen += fresh?.length ?? 0;
      if (fresh === undefined) tell("the stream is gone");
      else if (seen === 2 * packed) tell("all came");
    });
    await streams.append("s", [
      { partitionKey: "a", data },
      { partitionKey: "b", data },
    ]);
    assert.equal(await told, "all came");
  } finally {
    readings.close();
    await streams.close();
    await place.remove();
  }
});

test("who follows a stream hears of its end also when it is made anew at once", LIMIT, async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  const spec = { name: "s", shards: 1, retentionHours: 24 };
  const readings = new RecentReadings(streams, systemClock);
  try {
    await streams.createStream(spec);
    const seen: unknown[] = [];
    let tell = (): void => {};
    const gone = new Promise<void>((resolve) => (tell = resolve));
    await readings.follow("s", "k", (fresh) => {
      if (fresh === undefined) tell();
      else seen.push(...fresh.map((reading) => reading.values.value));
    });
    const put = (n: number) => streams.append("s", [{ partitionKey: "k", data: Buffer.from(String(n)) }]);
    const read = streams.read.bind(streams);
    streams.read = async (...place) => {
      const result = await read(...place);
      streams.read = read;
      await streams.deleteStream("s");
      await streams.createStream(spec);
      return result;
    };
    await put(1);
    await gone;
    assert.deepEqual(seen, [1]);
    await put(2);
    const { rows } = await readings.readings("s", "k", AN_HOUR);
    assert.deepEqual(
      rows.map((row) => row.values.value),
      [2],
    );
  } finally {
    readings.close();
    await streams.close();
    await place.remove();
  }
});
