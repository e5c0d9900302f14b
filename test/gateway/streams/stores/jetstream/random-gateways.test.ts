/** What gateways in front of one cluster do to a stream at the same time, at random, held against a plain model. HEADWATER_SEED repeats a run. */
import assert from "node:assert/strict";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { OnDemand } from "../../../../../gateway/streams/on-demand.ts";
import { Documents } from "../../../../../gateway/streams/stores/jetstream/cluster/documents.ts";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { type Consumer, LeaseLostError, type Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { createLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { makeFrame, readAll } from "../../../../contract/stream-records.ts";
import { clusterFact as fact, recordsOf, until } from "./cluster-fact.ts";

const HOUR_NS = 3_600 * 1_000_000_000;
const WRITERS = 4;
const PUTS = 80;
const FRAMES = 60;

/** mulberry32 */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function seeded(): { seed: number; random: (below: number) => number } {
  const seed = Number(process.env.HEADWATER_SEED ?? Math.floor(Math.random() * 2 ** 31));
  return { seed, random: randomFrom(seed) };
}

/** Ends well, or by one of these errors. @returns whether it ended well */
async function allowing(codes: readonly string[], work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!codes.includes((error as { code?: string }).code ?? "")) throw error;
    return false;
  }
}

async function reshard(streams: Streams, random: (below: number) => number): Promise<boolean> {
  const open = streams
    .describe("s")
    .shardList.filter(({ closedMs }) => closedMs === undefined)
    .sort((a, b) => (a.hashFrom < b.hashFrom ? -1 : 1));
  const at = random(open.length);
  const [shard, next] = [open[at]!, open[at + 1]];
  return allowing(["BAD_RESHARD", "SHARD_NOT_FOUND"], async () => {
    if (next !== undefined && random(8) < open.length) {
      await streams.mergeShards("s", shard.shardId, next.shardId);
    } else if (random(3) === 0) {
      const width = (shard.hashTo - shard.hashFrom) / 10n;
      const [low, high] = [shard.hashFrom + 1n + width, shard.hashFrom + 1n + width * 5n];
      await streams.reshard("s", [
        { do: "split", at: high },
        { do: "split", at: low },
        { do: "merge", at: high },
      ]);
    } else {
      const width = (shard.hashTo - shard.hashFrom) / 10n;
      await streams.splitShard("s", shard.shardId, shard.hashFrom + 1n + width * BigInt(1 + random(8)));
    }
  });
}

/** Reads on, as a stage does, on one gateway or another; what is checkpointed counts. */
class Reader {
  readonly consumed: string[] = [];
  takeOvers = 0;
  #consumer: Consumer | undefined;
  #streams: Streams | undefined;

  async step(streams: Streams, random: (below: number) => number): Promise<void> {
    if (this.#consumer === undefined || this.#consumer.lost.aborted || random(6) === 0) {
      this.#streams = streams;
      this.#consumer = await streams.openConsumer("s", "c", { takeOver: true });
      this.takeOvers++;
    }
    const consumer = this.#consumer;
    const texts: string[] = [];
    const positions = new Map<string, number>();
    for (const [shardId, from] of consumer.positions()) {
      if (random(3) === 0) continue;
      let { parts, next } = await this.#streams!.read("s", shardId, from, 1 + random(2_000));
      const last = parts.at(-1);
      // Sometimes up to the last record only.
      if (last !== undefined && random(2) === 0) next = last.first + last.count;
      for (const { text, offset } of await readAll(this.#streams!, "s", shardId, from)) {
        if (offset < next) texts.push(text);
      }
      positions.set(shardId, next);
    }
    // Another one takes it over in the midst of that.
    const other = random(5) === 0 ? streams.openConsumer("s", "c", { takeOver: true }) : undefined;
    try {
      await consumer.checkpoint(positions);
      this.consumed.push(...texts);
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
    }
    if (other !== undefined) {
      this.takeOvers++;
      this.#consumer = await other;
      this.#streams = streams;
    }
  }
}

fact(
  "whatever gateways split, merge, store and read at once, each record is there once and in its key's order",
  async ({ open }) => {
    const { seed, random } = seeded();
    const gateways = [await open(), await open()];
    await gateways[0]!.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await until(() => gateways[1]!.listStreams().includes("s"));
    const one = (): Streams => gateways[random(gateways.length)]!;
    const written = new Map<string, string[]>();
    const placed = new Map<string, { shardId: string; offset: number; arrivalMs: number }>();
    const note = (key: string, text: string): void => {
      written.set(key, [...(written.get(key) ?? []), text]);
    };
    let writing = WRITERS + 2;
    const write = async (writer: number): Promise<void> => {
      for (let i = 0; i < PUTS; i++) {
        const entries = Array.from({ length: 1 + random(4) }, (_, j) => {
          const key = `w${writer}-${random(5)}`;
          const text = `${key}=${i}.${j}`;
          note(key, text);
          return { partitionKey: key, data: Buffer.from(text) };
        });
        const places = await one().append("s", entries);
        for (const [j, { data }] of entries.entries()) placed.set(data.toString(), places[j]!);
      }
      writing--;
    };
    const frames = async (epoch: bigint): Promise<void> => {
      for (let i = 1; i <= FRAMES; i++) {
        const texts = Array.from({ length: 1 + random(3) }, (_, j) => `f${epoch}-${random(3)}=${i}.${j}`);
        for (const text of texts) note(text.split("=")[0]!, text);
        const frame = makeFrame("s", BigInt(i), texts, epoch);
        // As an agent whose link breaks: the same frame by both, one behind the other or at once.
        const copies = Array.from({ length: 1 + random(3) }, () => one().appendFrame(frame));
        const outcomes = await Promise.all(copies);
        assert.equal(outcomes.filter((outcome) => outcome === "stored").length, 1, `frame ${i}: ${outcomes}`);
      }
      writing--;
    };
    let reshards = 0;
    const reshardOn = async (): Promise<void> => {
      while (writing > 0) {
        if (await reshard(one(), random)) reshards++;
        await new Promise((resolve) => setTimeout(resolve, random(80)));
      }
    };
    const reader = new Reader();
    const readOn = async (): Promise<void> => {
      while (writing > 0) await reader.step(one(), random);
    };
    const joinOn = async (): Promise<void> => {
      while (writing > 0) {
        const third = await open();
        const index = gateways.push(third) - 1;
        await new Promise((resolve) => setTimeout(resolve, random(500)));
        assert.equal(gateways.splice(index, 1)[0], third);
      }
    };
    try {
      await Promise.all([
        ...Array.from({ length: WRITERS }, (_, i) => write(i)),
        frames(1n),
        frames(2n),
        reshardOn(),
        reshardOn(),
        readOn(),
        joinOn(),
      ]);
      const wanted = [...written.values()].flat().sort();
      const fresh = await open();
      for (const streams of [fresh, ...gateways]) {
        await until(async () => (await recordsOf(streams)).length >= wanted.length);
        const records = await recordsOf(streams);
        assert.deepEqual(records.map(({ text }) => text).sort(), wanted);
        records.sort((a, b) => a.offset - b.offset);
        for (const [key, texts] of written) {
          const ofKey = records.filter((record) => record.key === key);
          assert.deepEqual(
            ofKey.map(({ text }) => text),
            texts,
            "in their order",
          );
          // Sequence numbers begin with the second in which the shard was made.
          const seconds = ofKey.map(({ shardId }) =>
            Math.floor(
              streams.describe("s").shardList.find((shard) => shard.shardId === shardId)!.createdMs / 1000,
            ),
          );
          assert.deepEqual(
            seconds,
            [...seconds].sort((a, b) => a - b),
            "sequence numbers rise",
          );
        }
        for (const { text, shardId, offset, arrivalMs } of records) {
          const place = placed.get(text);
          if (place !== undefined) assert.deepEqual(place, { shardId, offset, arrivalMs });
        }
      }
      const untilMs = Date.now() + 60_000;
      while (reader.consumed.length < wanted.length && Date.now() < untilMs) await reader.step(one(), random);
      for (const [key, texts] of written) {
        assert.deepEqual(
          reader.consumed.filter((text) => text.startsWith(`${key}=`)),
          texts,
          "consumed in their order",
        );
      }
      assert.ok(reshards > 0 && reader.takeOvers > 1, `${reshards} reshards, ${reader.takeOvers} holders`);
    } catch (error) {
      console.error(`HEADWATER_SEED=${seed}`);
      throw error;
    }
  },
);

fact(
  "whatever gateways make, delete and change at once, all come to know the same, and nothing else stays on the cluster",
  async ({ open, cluster, prefix }) => {
    const { seed, random } = seeded();
    const gateways = [await open(), await open(), await open()];
    const names = ["p", "q", "r"];
    const failed: string[] = [];
    const log = createLog("on-demand", "warn", { write: (line: string) => void failed.push(line) });
    const nc = await connect({ servers: cluster.servers });
    const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
    const gone = ["STREAM_NOT_FOUND"];
    const doOne = async (streams: Streams): Promise<void> => {
      const name = names[random(names.length)]!;
      const what = random(12);
      if (what < 3) {
        const spec = { name, shards: 5, retentionHours: 24, mode: "on-demand" as const };
        await allowing([...gone, "STREAM_EXISTS"], () => streams.createStream(spec));
      } else if (what < 4) await allowing(gone, () => streams.deleteStream(name));
      else if (what < 6)
        await allowing(gone, () => streams.updateStream(name, { retentionHours: 24 + random(100) }));
      else if (what < 7)
        await allowing(gone, () =>
          streams.updateStream(name, { mode: random(2) === 0 ? "on-demand" : "provisioned" }),
        );
      else if (what < 9)
        await allowing([...gone, "READER_EXISTS"], () =>
          streams.registerReader(name, `reader${random(3)}`, {}),
        );
      else if (what < 10)
        await allowing([...gone, "READER_NOT_FOUND"], () =>
          streams.deregisterReader(name, `reader${random(3)}`),
        );
      else {
        await allowing([...gone, "LEASE_HELD", "LEASE_LOST"], async () => {
          const consumer = await streams.openConsumer(name, `c${random(3)}`, { takeOver: random(2) === 0 });
          if (random(2) === 0) await consumer.close();
        });
      }
    };
    let busy = true;
    const scale = async (streams: Streams): Promise<void> => {
      // Its quarter of an hour passes in two seconds; without traffic shards are merged.
      const clock = { nowUs: () => Date.now() * 1_000, monotonicMs: () => performance.now() * 500 };
      const onDemand = new OnDemand({ streams, clock, log, metrics: new Metrics() });
      while (busy) {
        await onDemand.look();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await onDemand.close();
    };
    try {
      const scaling = Promise.all(gateways.map(scale));
      const actors = gateways.flatMap((streams) => [streams, streams]);
      await Promise.all(
        actors.map(async (streams) => {
          for (let i = 0; i < 25; i++) await doOne(streams);
        }),
      );
      busy = false;
      await scaling;
      assert.deepEqual(failed, []);
      const factsOf = (streams: Streams) =>
        streams.listStreams().map((name) => {
          const { shardList, ...settings } = streams.describe(name);
          const shards = shardList.map(({ shardId, hashFrom, hashTo, parents }) => ({
            shardId,
            hashFrom,
            hashTo,
            parents,
          }));
          return { ...settings, shards, readers: streams.registeredReaders(name) };
        });
      const manager = await jetstreamManager(nc);
      const documents = new Documents(link, prefix);
      const onCluster = async () => {
        const kept: Record<string, number> = {};
        for await (const { config } of manager.streams.list()) {
          if (config.name.startsWith(prefix) && config.name !== documents.stream) {
            kept[config.name.slice(prefix.length + 1)] = config.max_age / HOUR_NS;
          }
        }
        return kept;
      };
      const said = () =>
        Object.fromEntries(
          gateways[0]!
            .listStreams()
            .map((name) => [
              gateways[0]!.settings(name).streamId,
              gateways[0]!.settings(name).retentionHours,
            ]),
        );
      const consumed = async () => new Set((await documents.keys("c")).map((key) => key.split(".")[0]!));
      const same = async (): Promise<boolean> => {
        try {
          for (const streams of gateways) assert.deepEqual(factsOf(streams), factsOf(gateways[0]!));
          assert.deepEqual(await onCluster(), said());
          for (const id of await consumed()) assert.ok(id in said(), `documents of ${id}`);
          return true;
        } catch (error) {
          if (Date.now() > untilMs) throw error;
          return false;
        }
      };
      const untilMs = Date.now() + 40_000;
      await until(same);
      const fresh = await open();
      assert.deepEqual(
        factsOf(fresh).map(({ producers: _, ...facts }) => facts),
        factsOf(gateways[0]!).map(({ producers: _, ...facts }) => facts),
      );
    } catch (error) {
      console.error(`HEADWATER_SEED=${seed}`);
      throw error;
    } finally {
      busy = false;
      await Promise.all([link.close(), nc.close()]);
    }
  },
);
