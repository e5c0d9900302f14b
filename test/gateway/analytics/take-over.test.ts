/** One statement on two gateways. One of them is killed or paused in the middle of a commit, and the other goes on. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CommitStep } from "../../../gateway/analytics/statement.ts";
import type { Consumer, Streams } from "../../../gateway/streams/streams.ts";
import { ArmedProgram } from "../../support/armed-program.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { scriptPath } from "../../support/script.ts";
import { clusterFact, type Ground } from "../streams/stores/jetstream/cluster-fact.ts";
import {
  askDuckDb,
  closeRigs,
  contents,
  DELAY_MS,
  difference,
  entryOf,
  INPUT,
  madeUp,
  OUTPUT,
  openRigOver,
  type Reading,
  results,
  SHARDS,
  until,
} from "./analytics-rig.ts";

const START_MS = Date.UTC(2026, 0, 1);
const ROUNDS = Number(process.env.TAKE_OVERS ?? 3);
/** Seven sensors in one second. */
const SECOND = 7;
const STEPS: readonly CommitStep[] = ["checkpoint", "frames", "consumer"];

/** Two gateways with folders of their own, and a third through which readings come. */
class Pair {
  readonly streams: Streams;
  readonly dir: string;
  readonly #ground: Ground;
  readonly #fronts: ArmedProgram[] = [];
  readonly #shards = new Map<string, string>();
  readonly readings = madeUp(600, START_MS);
  fed = 0;
  /** How many of them are of an input that was deleted. */
  former = 0;

  private constructor(ground: Ground, streams: Streams, dir: string) {
    this.#ground = ground;
    this.streams = streams;
    this.dir = dir;
  }

  static async with(ground: Ground, body: (pair: Pair) => Promise<void>): Promise<void> {
    const streams = await ground.open();
    for (const name of [INPUT, OUTPUT])
      await streams.createStream({ name, shards: SHARDS, retentionHours: 24 });
    const pair = new Pair(ground, streams, await mkdtemp(join(tmpdir(), "headwater-take-over-")));
    try {
      await body(pair);
    } catch (error) {
      for (const [i, front] of pair.#fronts.entries()) console.error(`gateway ${i}:`, front.said.slice(-20));
      throw error;
    } finally {
      await closeRigs();
      await Promise.all(pair.#fronts.map((front) => front.kill()));
      await removeFolder(pair.dir);
    }
  }

  async start(which: "a" | "b"): Promise<ArmedProgram> {
    const { cluster, prefix } = this.#ground;
    const script = scriptPath("./take-over-gateway.ts", import.meta.url);
    const front = new ArmedProgram(script, [cluster.servers.join(","), prefix, join(this.dir, which)]);
    this.#fronts.push(front);
    await front.says("ready");
    return front;
  }

  /** So many seconds of readings. */
  async feed(seconds: number): Promise<void> {
    for (let i = 0; i < seconds; i++) {
      const some = this.readings.slice(this.fed, this.fed + SECOND);
      const entries = some.map(entryOf);
      const placed = await this.streams.append(INPUT, entries);
      for (const [at, { partitionKey }] of entries.entries())
        this.#shards.set(partitionKey, placed[at]!.shardId);
      this.fed += some.length;
    }
  }

  /** Deletes the input and makes it again. */
  async makeAnew(): Promise<void> {
    await this.streams.deleteStream(INPUT);
    await this.streams.createStream({ name: INPUT, shards: SHARDS, retentionHours: 24 });
    this.former = this.fed;
  }

  /** Every window that can be closed is there once, as DuckDB has it. */
  async judge(): Promise<void> {
    const inputs = [this.readings.slice(0, this.former), this.readings.slice(this.former, this.fed)];
    const windows = inputs.map((fed) => (fed.length === 0 ? [] : askDuckDb(fed, this.#watermarkMs(fed))));
    const expected = (await Promise.all(windows)).flat();
    const isThere = async (): Promise<boolean> =>
      (await contents(this.streams, OUTPUT)).length >= expected.length;
    await until("all windows are there", isThere);
    assert.equal(difference(await results(this.streams), expected), undefined);
  }

  /** That of the slowest shard; every shard has a sensor. */
  #watermarkMs(fed: readonly Reading[]): number {
    const newest = new Map<string, number>();
    for (const { sensor, timeMs } of fed) {
      const shard = this.#shards.get(sensor ?? "none")!;
      newest.set(shard, Math.max(newest.get(shard) ?? 0, timeMs));
    }
    return Math.min(...newest.values()) - DELAY_MS;
  }
}

/** Holds a statement of this process in the middle of a commit, and lets it lose its lease. */
class Sleep {
  #until: Promise<void> | undefined;
  #sleeps = false;

  readonly here = (): Promise<void> | undefined => {
    this.#sleeps = this.#until !== undefined;
    return this.#until;
  };

  async whileIn(pair: Pair, body: () => Promise<void>): Promise<void> {
    let wake = (): void => undefined;
    this.#until = new Promise((resolve) => {
      wake = resolve;
    });
    try {
      await pair.feed(20);
      await until("it sleeps", () => this.#sleeps);
      await (await pair.streams.openConsumer(INPUT, "analytics/tens", { takeOver: true })).close();
      await body();
    } finally {
      this.#until = undefined;
      wake();
    }
  }
}

for (const step of STEPS) {
  clusterFact(`killed after "${step}", the other gateway yields each window once`, (ground) =>
    Pair.with(ground, async (pair) => {
      const a = await pair.start("a");
      await pair.feed(30);
      await pair.judge();
      await a.arm(step, "SIGKILL");
      await pair.feed(20);
      await a.gone;
      await pair.feed(20);
      await pair.start("b");
      await pair.judge();
      // The first one comes back, and has nothing of its own left.
      const again = await pair.start("a");
      await again.says("log another gateway runs the statement");
      await pair.feed(20);
      await pair.judge();
    }),
  );
}

// With results to append, and with none.
for (const step of ["checkpoint", "consumer"] as const) {
  clusterFact(
    `paused after "${step}" and awake when the other has gone on, it yields nothing more`,
    (ground) =>
      Pair.with(ground, async (pair) => {
        const a = await pair.start("a");
        await pair.feed(30);
        await pair.judge();
        const before = a.count(`step ${step}`);
        await a.arm(step, "SIGSTOP");
        await pair.feed(20);
        await a.says(`step ${step}`, before + 1);
        const b = await pair.start("b");
        await pair.feed(20);
        await pair.judge();
        a.wake();
        await a.says("log another gateway runs the statement");
        await pair.judge();
        await b.kill();
        await pair.feed(20);
        await pair.judge();
      }),
  );
}

clusterFact("whichever of two gateways is killed, and whenever, each window comes once", (ground) =>
  Pair.with(ground, async (pair) => {
    const fronts = { a: await pair.start("a"), b: await pair.start("b") };
    for (let round = 0; round < ROUNDS; round++) {
      const before = { a: fronts.a.count("step"), b: fronts.b.count("step") };
      const wanted = 1 + Math.floor(Math.random() * 9);
      const busy = (): "a" | "b" | undefined =>
        (["a", "b"] as const).find((name) => fronts[name].count("step") >= before[name] + wanted);
      // Its windows close as it is fed; no faster than it works, so that what is left at the end is little.
      while (busy() === undefined) {
        const steps = fronts.a.count("step") + fronts.b.count("step");
        if (pair.fed < pair.readings.length) await pair.feed(10);
        await until("they get on", () => fronts.a.count("step") + fronts.b.count("step") > steps);
      }
      const victim = busy()!;
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 30));
      await fronts[victim].kill();
      fronts[victim] = await pair.start(victim);
    }
    await pair.feed(10);
    await pair.judge();
  }),
);

clusterFact("what is read of split shards stays read on gateways that never saw their records", (ground) =>
  Pair.with(ground, async (pair) => {
    const a = await pair.start("a");
    await pair.feed(30);
    await pair.judge();
    const before = await ground.open();
    // The parents close behind the place where it began.
    await pair.feed(1);
    const parents = pair.streams.describe(INPUT).shardList;
    for (const { shardId, hashFrom, hashTo } of parents)
      await pair.streams.splitShard(INPUT, shardId, (hashFrom + hashTo) / 2n);
    await pair.feed(25);
    const isThrough = async (): Promise<boolean> => {
      const [consumer] = await pair.streams.consumers(INPUT);
      const children = pair.streams.describe(INPUT).shardList.slice(parents.length);
      // Those with sensors.
      return children.filter(({ shardId }) => consumer!.positions.has(shardId)).length >= parents.length;
    };
    await until("it is through with the parents", isThrough);
    await a.kill();
    for (const other of [before, await ground.open()]) {
      const rig = await openRigOver(other, join(pair.dir, "own"));
      await rig.analytics.start();
      await pair.feed(25);
      await until("all is read", () => rig.analytics.status()[0]!.records === pair.fed);
      const { late, skipped, trimmed, lastError } = rig.analytics.status()[0]!;
      assert.deepEqual([late, skipped, trimmed, lastError], [0, 0, 0, undefined]);
      await results(pair.streams);
      await rig.analytics.close();
    }
  }),
);

clusterFact("what an earlier version kept in a file goes on beside the consumer", (ground) =>
  Pair.with(ground, async (pair) => {
    const folder = join(pair.dir, "own");
    await mkdir(folder);
    await pair.feed(17);
    // As earlier versions did: nothing is handed over.
    const former = await ground.open();
    const opened = former.openConsumer.bind(former);
    former.openConsumer = async (...args): Promise<Consumer> => {
      const consumer = await opened(...args);
      return new Proxy(consumer, {
        get: (target, name) => {
          if (name === "handover") return undefined;
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    };
    const before = await openRigOver(former, folder);
    await before.analytics.start();
    await until("it has read them", () => before.analytics.status()[0]!.records === pair.fed);
    await before.analytics.close();
    const files = (): Promise<string[]> => readdir(join(folder, "analytics", "tens"));
    assert.deepEqual(await files(), ["checkpoint"]);

    const rig = await openRigOver(await ground.open(), folder);
    await rig.analytics.start();
    await pair.feed(20);
    await pair.judge();
    assert.deepEqual(await files(), []);
    assert.equal(rig.analytics.status()[0]!.skipped, 0);
    await rig.analytics.close();
    await pair.start("b");
    await pair.feed(20);
    await pair.judge();
  }),
);

clusterFact("an input that is deleted and made anew is read from its start, and the totals go on", (ground) =>
  Pair.with(ground, async (pair) => {
    const rig = await openRigOver(await ground.open(), join(pair.dir, "own"));
    await rig.analytics.start();
    await pair.feed(20);
    await pair.judge();
    const readings = pair.fed;
    const isKept = async (): Promise<boolean> => {
      const [consumer] = await pair.streams.consumers(INPUT);
      const { shardList } = pair.streams.describe(INPUT);
      return shardList.every(({ shardId, latest }) => consumer!.positions.get(shardId)! >= latest);
    };
    await until("what is read of the former one is kept", isKept);
    await pair.streams.deleteStream(INPUT);
    await until("it has heard", () => !rig.streams.listStreams().includes(INPUT));
    await pair.streams.createStream({ name: INPUT, shards: SHARDS, retentionHours: 24 });
    const before = (await results(pair.streams)).length;
    await pair.feed(40);
    await until("it goes on", () => rig.analytics.status()[0]!.records === pair.fed);
    assert.ok(pair.fed > readings);
    await until("windows come", async () => (await results(pair.streams)).length > before);
  }),
);

clusterFact("who knows of an older commit to a deleted input repeats nothing of the newer ones", (ground) =>
  Pair.with(ground, async (pair) => {
    const sleep = new Sleep();
    const a = await openRigOver(await ground.open(), join(pair.dir, "a"), { onStep: sleep.here });
    await a.analytics.start();
    await pair.feed(30);
    await pair.judge();
    await sleep.whileIn(pair, async () => {
      const b = await openRigOver(await ground.open(), join(pair.dir, "b"));
      await b.analytics.start();
      await pair.feed(60);
      await pair.judge();
      await b.close();
      await pair.makeAnew();
    });
    await pair.feed(60);
    await pair.judge();
  }),
);

clusterFact("who goes on where another began anew counts what it reads", (ground) =>
  Pair.with(ground, async (pair) => {
    const sleep = new Sleep();
    const a = await openRigOver(await ground.open(), join(pair.dir, "a"), { onStep: sleep.here });
    const counted = async (): Promise<number> =>
      Number(/^headwater_analytics_records_total.* (\d+)$/m.exec(await a.metrics.render())?.[1]);
    await a.analytics.start();
    await pair.feed(30);
    await pair.judge();
    let before = 0;
    await sleep.whileIn(pair, async () => {
      before = await counted();
      await pair.makeAnew();
      const b = await openRigOver(await ground.open(), join(pair.dir, "b"));
      await b.analytics.start();
      await pair.feed(20);
      await until("the other one has read it", () => b.analytics.status()[0]!.records === 20 * SECOND);
      await b.close();
    });
    await pair.feed(10);
    await until("it goes on", () => a.analytics.status()[0]!.records === 30 * SECOND);
    assert.equal(await counted(), before + 10 * SECOND);
  }),
);

clusterFact(
  "who opened the consumer and wrote nothing leaves a beginning, also where all has expired",
  async (ground) => {
    const streams = await ground.open();
    await streams.createStream({ name: INPUT, shards: 1, retentionHours: 2 / 3_600 });
    await streams.append(INPUT, madeUp(1, START_MS).map(entryOf));
    const isExpired = (): boolean => {
      const { trimHorizon, latest } = streams.describe(INPUT).shardList[0]!;
      return trimHorizon === latest;
    };
    await until("nothing is kept", isExpired);
    // Of the shard's records it never saw one.
    const other = await ground.open();
    await (await other.openConsumer(INPUT, "analytics/tens")).close();
    const dir = await mkdtemp(join(tmpdir(), "headwater-take-over-"));
    let steps = 0;
    const rig = await openRigOver(streams, dir, { onStep: () => void steps++ });
    try {
      await rig.analytics.start();
      const status = () => rig.analytics.status()[0]!;
      await until("it has begun, or stopped", () => steps > 0 || status().state === "failed");
      assert.equal(status().lastError, undefined);
      // These are to be there still when they are read.
      await streams.updateStream(INPUT, { retentionHours: 24 });
      await streams.append(INPUT, madeUp(1, START_MS).map(entryOf));
      await until("it has read", () => status().records === SECOND);
    } finally {
      await closeRigs();
      await removeFolder(dir);
    }
  },
);

clusterFact("a checkpoint that is gone stops the statement, and says how to go on", (ground) =>
  Pair.with(ground, async (pair) => {
    const first = await openRigOver(await ground.open(), join(pair.dir, "first"));
    await first.analytics.start();
    await pair.feed(20);
    await pair.judge();
    await first.close();
    const consumer = await pair.streams.openConsumer(INPUT, "analytics/tens");
    await consumer.handover!.keepBytes([Buffer.from("something else")]);
    await consumer.close();
    const second = await openRigOver(await ground.open(), join(pair.dir, "second"));
    await second.analytics.start();
    const status = () => second.analytics.status()[0]!;
    await until("it has stopped", () => status().state === "failed");
    assert.match(status().lastError!, /ANALYTICS_STATE_LOST: .* is no checkpoint \(restore .* new name/);
  }),
);
