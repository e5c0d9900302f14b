/** Two gateways that write to the same shards at the same moment: nothing is doubled, and both say the same. */
import assert from "node:assert/strict";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import type { Placed, Streams } from "../../../../../gateway/streams/streams.ts";
import { makeFrame } from "../../../../contract/stream-records.ts";
import { clusterFact, recordsOf, textsOf, until } from "./cluster-fact.ts";

const FRAMES = 120;
const EPOCHS = 3;
const PUTS = 150;
const WINDOW = 4;

clusterFact(
  "the same frames by two gateways at once are stored once, and both give the same places",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const stored = new Map<string, number>();
    const placed = new Map<string, Placed>();
    const frames = async (streams: Streams, epoch: bigint): Promise<void> => {
      const waiting: Array<Promise<unknown>> = [];
      for (let i = 1; i <= FRAMES; i++) {
        const text = `e${epoch}=${i}`;
        waiting.push(
          streams.appendFrame(makeFrame("s", BigInt(i), [text], epoch)).then((outcome) => {
            if (outcome === "stored") stored.set(text, (stored.get(text) ?? 0) + 1);
          }),
        );
        if (waiting.length >= WINDOW) await waiting.shift();
      }
      await Promise.all(waiting);
    };
    const puts = async (streams: Streams, name: string): Promise<void> => {
      for (let i = 1; i <= PUTS; i++) {
        const text = `${name}:${i}`;
        const [place] = await streams.append("s", [{ partitionKey: text, data: Buffer.from(text) }]);
        placed.set(text, place!);
      }
    };
    const epochs = Array.from({ length: EPOCHS }, (_, i) => BigInt(i + 1));
    await Promise.all(
      [a, b].flatMap((streams, i) => [
        ...epochs.map((epoch) => frames(streams, epoch)),
        puts(streams, `put${i}`),
        puts(streams, `other${i}`),
      ]),
    );
    const wanted = epochs.flatMap((epoch) => Array.from({ length: FRAMES }, (_, i) => `e${epoch}=${i + 1}`));
    assert.deepEqual([...stored.keys()].sort(), [...wanted].sort(), "each frame is stored by one gateway");
    assert.deepEqual(
      [...stored].filter(([, times]) => times !== 1),
      [],
      "and by one alone",
    );
    const all = [...wanted, ...placed.keys()].sort();
    await until(
      async () => (await textsOf(a)).length >= all.length && (await textsOf(b)).length >= all.length,
    );
    const [ofA, ofB, fresh] = [await recordsOf(a), await recordsOf(b), await recordsOf(await open())];
    assert.deepEqual(ofA.map(({ text }) => text).sort(), all);
    assert.deepEqual(ofB, ofA);
    assert.deepEqual(fresh, ofA);
    assert.equal(new Set(ofA.map(({ offset }) => offset)).size, ofA.length, "offsets differ");
    for (const { text, shardId, offset, arrivalMs } of ofA) {
      const place = placed.get(text);
      if (place !== undefined) assert.deepEqual(place, { shardId, offset, arrivalMs });
    }
    for (const epoch of epochs) {
      const ofEpoch = ofA.filter(({ key }) => key === `e${epoch}`).map(({ text }) => text);
      assert.deepEqual(
        ofEpoch,
        wanted.filter((text) => text.startsWith(`e${epoch}=`)),
        "in their order",
      );
    }
  },
);

clusterFact(
  "a publish that a client sends again by the other gateway, meanwhile, is stored once",
  async ({ open }) => {
    const [a, b] = [await open(), await open()];
    await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
    await until(() => b.listStreams().includes("s"));
    const wanted: string[] = [];
    for (let i = 1; i <= 60; i++) {
      const text = `p${i}`;
      wanted.push(text);
      const publish = {
        clientId: "plug",
        packetId: i,
        partitionKey: "k",
        timeUs: 1,
        payload: Buffer.from(text),
      };
      await Promise.all([
        a.appendPublish("s", { ...publish, mayRepeat: false }),
        b.appendPublish("s", { ...publish, mayRepeat: true }),
      ]);
    }
    const fresh = await open();
    assert.deepEqual(await textsOf(fresh), wanted);
  },
);

clusterFact("what is stored while a gateway opens is read there at once", async ({ open }) => {
  const a = await open();
  await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
  assert.equal(await a.appendFrame(makeFrame("s", 1n, ["f1"])), "stored");
  // The newcomer has read where the log ends, and asks now what is remembered of the epoch.
  const { lastThatCounts } = Link.prototype;
  let meanwhile: Promise<unknown> | undefined;
  Link.prototype.lastThatCounts = async function (stream, subject) {
    if (subject.includes(".f.")) meanwhile ??= a.appendFrame(makeFrame("s", 2n, ["f2"]));
    await meanwhile;
    return lastThatCounts.call(this, stream, subject);
  };
  try {
    const b = await open();
    assert.equal(await meanwhile, "stored");
    assert.deepEqual(await textsOf(b), ["f1", "f2"]);
    assert.equal(b.describe("s").shardList[0]!.latest, a.describe("s").shardList[0]!.latest);
    assert.equal(await b.appendFrame(makeFrame("s", 2n, ["f2"])), "duplicate");
    assert.equal(await b.appendFrame(makeFrame("s", 3n, ["f3"])), "stored");
  } finally {
    Link.prototype.lastThatCounts = lastThatCounts;
  }
});

clusterFact(
  "of two gateways that make the same stream at once one does, and both can use it then",
  async ({ open }) => {
    const gateways = [await open(), await open()];
    for (let i = 0; i < 8; i++) {
      const name = `s${i}`;
      const outcomes = await Promise.all(
        gateways.map(async (streams) => {
          const made = streams.createStream({ name, shards: 1, retentionHours: 24 });
          const outcome = await made.then(() => "made").catch((error: { code: string }) => error.code);
          await streams.append(name, [{ partitionKey: "k", data: Buffer.from("x") }]);
          return outcome;
        }),
      );
      assert.deepEqual(outcomes.sort(), ["STREAM_EXISTS", "made"]);
      await until(async () => (await textsOf(gateways[0]!, name)).length === 2);
    }
  },
);
