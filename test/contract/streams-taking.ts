/** What a store takes, and takes once only, in every form; part of the streams' contract. */
import assert from "node:assert/strict";
import {
  MAX_HASH,
  type PlainPublish,
  partitionHash,
  StreamNotFoundError,
  type Streams,
} from "../../gateway/streams/streams.ts";
import { type Fact, makeFrame, publishColumns, readAll } from "./stream-records.ts";

const SHARD_0 = "shardId-000000000000";
const SHARD_1 = "shardId-000000000001";
const HALF = (MAX_HASH + 1n) / 2n;

const make = (streams: Streams, shards = 1) =>
  streams.createStream({ name: "s", shards, retentionHours: 24 });

function publish(packetId: number, text: string, mayRepeat: boolean): PlainPublish {
  return {
    clientId: "plug",
    packetId,
    partitionKey: "tele/plug",
    timeUs: 1_700_000_000_000_000,
    payload: Buffer.from(text),
    mayRepeat,
  };
}

export function takingContract(fact: Fact): void {
  onceFacts(fact);
  columnFacts(fact);
}

function onceFacts(fact: Fact): void {
  fact("a frame sent twice is stored once, also after a reopening", async (streams, reopen) => {
    await make(streams, 2);
    const first = makeFrame("s", 1n, ["a=1", "b=1"]);
    const outcomes = await Promise.all([streams.appendFrame(first), streams.appendFrame(first)]);
    assert.deepEqual(outcomes, ["stored", "duplicate"]);
    assert.equal(await streams.appendFrame(makeFrame("s", 5n, ["a=5"])), "stored");
    assert.equal(await streams.appendFrame(makeFrame("s", 4n, ["a=4"])), "duplicate");
    assert.equal(await streams.appendFrame(makeFrame("s", 1n, ["a=other"], 8n)), "stored");
    const opened = await reopen();
    assert.equal(await opened.appendFrame(makeFrame("s", 5n, ["a=5"])), "duplicate");
    assert.equal(await opened.appendFrame(makeFrame("s", 6n, ["a=6"])), "stored");
    const texts: string[] = [];
    for (const { shardId } of opened.describe("s").shardList) {
      texts.push(...(await readAll(opened, "s", shardId)).map(({ text }) => text));
    }
    assert.deepEqual(texts.sort(), ["a=1", "a=5", "a=6", "a=other", "b=1"]);
  });

  fact("a forgotten epoch stays forgotten", async (streams, reopen) => {
    await make(streams);
    await streams.appendFrame(makeFrame("s", 1n, ["x"]));
    await streams.appendFrame(makeFrame("s", 1n, ["x"], 8n));
    assert.equal(streams.describe("s").producers, 2);
    await streams.forgetEpoch("pi-1", 7n);
    await streams.forgetEpoch("pi-1", 7n);
    assert.equal(streams.describe("s").producers, 1);
    assert.equal((await reopen()).describe("s").producers, 1);
  });

  fact("a publish that may be a resend is stored once", async (streams, reopen) => {
    await make(streams);
    assert.equal(await streams.appendPublish("s", publish(1, "on", false)), "stored");
    assert.equal(await streams.appendPublish("s", publish(2, "off", false)), "stored");
    assert.equal(await streams.appendPublish("s", publish(1, "on", false)), "stored");
    const opened = await reopen();
    assert.equal(await opened.appendPublish("s", publish(2, "off", true)), "duplicate");
    assert.equal(await opened.appendPublish("s", publish(3, "off", true)), "stored");
    assert.equal(await opened.appendPublish("s", { ...publish(3, "off", true), clientId: "x" }), "stored");
    assert.equal(opened.recognises("s", publish(2, "off", true)), true);
    assert.equal(opened.recognises("s", publish(2, "other", true)), false);
    assert.deepEqual([opened.remembersPacket("plug", 3), opened.remembersPacket("plug", 4)], [true, false]);
    for (let i = 0; i < 64; i++) await opened.appendPublish("s", publish(100 + i, "more", false));
    assert.equal(await opened.appendPublish("s", publish(2, "off", true)), "stored");
  });

  fact("publishes in columns are told apart as they are one by one", async (streams, reopen) => {
    await make(streams, 4);
    const list = [1, 2, 3].map((id) => publish(id, `${id}`, false));
    list.push({ ...publish(0, "unnumbered", false), partitionKey: "tele/other" });
    assert.deepEqual(await streams.appendPublishes("s", publishColumns(list)), Array(4).fill("stored"));
    const opened = await reopen();
    const again = [
      publish(2, "2", true),
      publish(3, "3", true),
      publish(4, "4", true),
      publish(5, "4", false),
    ];
    const other = { ...publish(2, "2", true), clientId: "another", partitionKey: "tele/ü" };
    assert.deepEqual(await opened.appendPublishes("s", publishColumns([...again, other])), [
      ...["duplicate", "duplicate", "stored", "stored", "stored"],
    ]);
    assert.deepEqual(await opened.appendPublishes("s", publishColumns([])), []);
    assert.equal(opened.recognises("s", publish(5, "4", true)), true);
    const records: string[] = [];
    for (const { shardId } of opened.describe("s").shardList) {
      for (const { key, text } of await readAll(opened, "s", shardId)) records.push(`${key} ${text}`);
    }
    assert.deepEqual(records.sort(), [
      "tele/other unnumbered",
      ...[1, 2, 3, 4, 4].map((value) => `tele/plug ${value}`),
      "tele/ü 2",
    ]);
    await assert.rejects(opened.appendPublishes("none", publishColumns(again)), StreamNotFoundError);
  });

  fact("what is handed in may be written to after the call", async (streams) => {
    await make(streams);
    const columns = publishColumns([publish(1, "columns", false)]);
    const bytes = makeFrame("s", 1n, ["frame"]);
    const stored = [streams.appendPublishes("s", columns), streams.appendFrame(bytes)];
    columns.data.fill(0);
    bytes.bytes.fill(0);
    await Promise.all(stored);
    const found = await readAll(streams, "s", SHARD_0);
    assert.deepEqual(found.map(({ text }) => text).sort(), ["columns", "frame"]);
  });

  fact("a client whose session ended says something new with the same words", async (streams, reopen) => {
    await make(streams);
    await streams.appendPublish("s", publish(1, "on", false));
    // Not waited for: what comes next is new at once.
    const waiting = streams.appendPublish("s", publish(2, "off", false));
    const forgotten = streams.forgetClient("plug");
    assert.equal(await streams.appendPublish("s", publish(2, "off", true)), "stored");
    await Promise.all([waiting, forgotten]);
    const opened = await reopen();
    assert.equal(opened.recognises("s", publish(1, "on", true)), false);
    assert.equal(opened.recognises("s", publish(2, "off", true)), true);
    await opened.forgetClient("plug");
    assert.equal((await reopen()).describe("s").producers, 0);
  });
}

function columnFacts(fact: Fact): void {
  fact("records in columns are stored as entries are", async (streams) => {
    await make(streams, 2);
    const texts = Array.from({ length: 30 }, (_, i) => `record-${i}`);
    const data = Buffer.from(texts.join(""));
    let end = 0;
    const placed = await streams.appendColumns("s", {
      count: texts.length,
      keys: texts.map((_, i) => `k${i % 4}`),
      hashes: texts.map((_, i) => (i % 5 === 0 ? (i % 2 === 0 ? 0n : MAX_HASH) : undefined)),
      data,
      ends: Uint32Array.from(texts, (text) => (end += text.length)),
    });
    for (const [i, text] of texts.entries()) {
      const hash = i % 5 === 0 ? (i % 2 === 0 ? 0n : MAX_HASH) : partitionHash(`k${i % 4}`);
      assert.equal(placed.shards[i], hash < HALF ? 0 : 1);
      const records = await readAll(streams, "s", placed.shards[i] === 0 ? SHARD_0 : SHARD_1);
      const record = records.find(({ offset }) => offset === placed.offsets[i]);
      assert.deepEqual([record?.text, record?.key], [text, `k${i % 4}`]);
      assert.equal(record?.arrivalMs, placed.arrivalMs);
    }
    const none = { count: 0, keys: [], hashes: undefined, data: Buffer.alloc(0), ends: new Uint32Array() };
    assert.equal((await streams.appendColumns("s", none)).offsets.length, 0);
  });
}
