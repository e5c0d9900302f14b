import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { Lanes } from "../../../agent/uplink/lanes.ts";
import { MqttUplink, type MqttUplinkOptions } from "../../../agent/uplink/mqtt-uplink.ts";
import { uplinkMeters } from "../../../agent/uplink/uplink-meters.ts";
import { decodeFrames, epochName, type Frame } from "../../../protocol/frame.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { StandInBroker } from "./stand-in-broker.ts";
import { StandInRules } from "./stand-in-rules.ts";

/** A clock whose time of day can be moved on. */
class MovedClock implements Clock {
  aheadUs = 0;

  nowUs(): number {
    return systemClock.nowUs() + this.aheadUs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs();
  }
}

/** Stores what arrives as the gateway does: by the last sequence of each stream and epoch. */
class StoredFrames {
  readonly frames: Frame[] = [];
  #last = new Map<string, bigint>();

  take(frames: readonly Frame[]): void {
    for (const frame of frames) {
      const key = `${epochName(frame.epoch)}/${frame.stream}`;
      if (frame.sequence <= (this.#last.get(key) ?? 0n)) continue;
      this.#last.set(key, frame.sequence);
      this.frames.push(frame);
    }
  }

  forget(epochs: readonly string[]): void {
    for (const key of [...this.#last.keys()]) if (epochs.includes(key.split("/")[0]!)) this.#last.delete(key);
  }
}

async function uplink(
  port: number,
  buffer: RecordBuffer,
  clock: Clock,
  options: Partial<MqttUplinkOptions> = {},
): Promise<MqttUplink> {
  const made = new MqttUplink({
    url: `mqtt://127.0.0.1:${port}`,
    device: "pi-1",
    buffer,
    clock,
    log: silentLog,
    metrics: new Metrics(),
    publishBytes: 8_000,
    windowBytes: 40_000,
    statusSeconds: 3_600,
    status: () => {
      throw new Error("not asked for");
    },
    backoff: new Backoff(2, 20),
    liveFirst: ["live"],
    ...options,
  });
  await made.start();
  return made;
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

async function fill(
  buffer: RecordBuffer,
  stream: string,
  from: number,
  to: number,
  bytes = 300,
): Promise<void> {
  for (let n = from; n < to; n += 10) {
    const some = Array.from({ length: Math.min(10, to - n) }, (_, i) => n + i);
    await buffer.append(some.map((each) => record(`${stream} ${each}`.padEnd(bytes), "k", stream)));
  }
}

const numbers = (frames: readonly Frame[], stream: string): number[] =>
  texts(frames, stream).map((text) => Number(text.trim().split(" ")[1]));
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** A buffer over which an outage has gone by. */
async function afterAnOutage(t: TestContext, clock: MovedClock): Promise<RecordBuffer> {
  const buffer = await openBuffer(await temporaryFolder(t), { clock, partBytes: 65_536 });
  for (let n = 0; n < 2_000; n += 100) {
    await fill(buffer, "bulk", n, n + 100);
    await fill(buffer, "live", n / 10, n / 10 + 10);
  }
  clock.aheadUs += 60_000_000;
  return buffer;
}

test("new records of a live-first stream do not wait for the backlog, and nothing is lost or doubled", async (t) => {
  const clock = new MovedClock();
  const buffer = await afterAnOutage(t, clock);
  const gateway = new StandInBroker();
  gateway.ackDelayMs = 5;
  const stored = new StoredFrames();
  gateway.onFrames = (frames) => {
    stored.take(frames);
    return "ack";
  };
  const up = await uplink(await gateway.start(t), buffer, clock);
  await until(() => buffer.usage().openEpochs > 1);
  let sentMeanwhile = 0;
  for (let n = 200; n < 210; n++) {
    // The gateway rests meanwhile: a slow disk here would else give the backlog the time to go.
    let taken = (): void => {};
    gateway.ackAfter = new Promise((resolve) => {
      taken = resolve;
    });
    await fill(buffer, "live", n, n + 1);
    gateway.ackAfter = undefined;
    taken();
    await until(() => numbers(stored.frames, "live").includes(n));
    // Each may wait for what is under way; behind the backlog not even the first would come before its end.
    if (n === 204) sentMeanwhile = numbers(stored.frames, "bulk").length;
  }
  assert.ok(sentMeanwhile < 1_500, `${sentMeanwhile} of 2000 old records went before`);
  await until(() => buffer.usage().waitingBytes === 0);
  const epochs = new Map<bigint, number[]>();
  for (const frame of stored.frames) {
    if (frame.stream !== "live") continue;
    epochs.set(frame.epoch, [...(epochs.get(frame.epoch) ?? []), ...numbers([frame], "live")]);
  }
  assert.deepEqual(
    [...epochs.values()].sort((a, b) => a[0]! - b[0]!),
    [upTo(200), upTo(210).slice(200)],
    "each epoch in its order",
  );
  assert.deepEqual(numbers(stored.frames, "bulk"), upTo(2_000));
  // The old epoch is done with, once the new one has caught up.
  await until(() => gateway.drained.length === 1 && buffer.usage().openEpochs === 1);
  await up.close();
  await buffer.close();
});

test("without live-first streams everything goes oldest first, in one epoch", async (t) => {
  const clock = new MovedClock();
  const buffer = await afterAnOutage(t, clock);
  const gateway = new StandInBroker();
  const up = await uplink(await gateway.start(t), buffer, clock, { liveFirst: [] });
  await fill(buffer, "live", 200, 210);
  await until(() => buffer.usage().waitingBytes === 0);
  const sequences = gateway.frames.map(({ sequence }) => sequence);
  assert.deepEqual(
    sequences,
    sequences.map((_, i) => BigInt(i + 1)),
  );
  await up.close();
  await buffer.close();
});

test("a stream that may not go is passed over and stays; what went ahead of it is not sent again", async (t) => {
  const clock = new MovedClock();
  const buffer = await openBuffer(await temporaryFolder(t), { clock, partBytes: 65_536 });
  const gateway = new StandInBroker();
  const rules = new StandInRules({ held: ["bulk"] });
  for (let n = 0; n < 300; n += 10) {
    await fill(buffer, "bulk", n, n + 10);
    await fill(buffer, "alarms", n, n + 10);
  }
  const up = await uplink(await gateway.start(t), buffer, clock, { rules });
  await until(() => numbers(gateway.frames, "alarms").length === 300);
  assert.deepEqual(numbers(gateway.frames, "bulk"), []);
  assert.ok(buffer.usage().waitingRecords >= 300, "what is held still waits");
  // Also on a new connection what is acknowledged stays so.
  let cut = false;
  gateway.onFrames = () => {
    if (cut) return "ack";
    cut = true;
    return "cut";
  };
  await fill(buffer, "alarms", 300, 310);
  await until(() => numbers(gateway.frames, "alarms").length >= 310);
  rules.toggle("bulk");
  await until(() => buffer.usage().waitingBytes === 0);
  assert.deepEqual(numbers(gateway.frames, "alarms"), upTo(310));
  assert.deepEqual(numbers(gateway.frames, "bulk"), upTo(300));
  await up.close();
  await buffer.close();
});

/** A connection of which the test decides what is acknowledged, and when. */
class HandConnection {
  readonly frames: Frame[] = [];
  readonly end = new AbortController();
  /** Publishes whose acknowledgement is held back. */
  held: { readonly frames: readonly Frame[]; readonly acknowledged: () => void }[] = [];
  holds: (frames: readonly Frame[]) => boolean;
  readonly ended: Promise<void>;

  constructor(buffer: RecordBuffer, clock: Clock, holds: (frames: readonly Frame[]) => boolean) {
    this.holds = holds;
    const lanes = new Lanes({
      buffer,
      clock,
      meters: uplinkMeters(new Metrics(), () => ({ connected: true, inFlightBytes: 0, split: false })),
      progress: { liveTo: undefined },
      liveFirst: new Set(["live"]),
      publishBytes: 20_000,
      windowBytes: 60_000,
      rules: undefined,
      packer: () => ({
        async pack(frames) {
          const payload = Buffer.concat(frames.map(({ bytes }) => bytes));
          return { payload, frameBytes: payload.length };
        },
      }),
      publish: (payload, acknowledged) => {
        const frames = decodeFrames(payload);
        this.frames.push(...frames);
        if (this.holds(frames)) this.held.push({ frames, acknowledged });
        else setImmediate(acknowledged);
      },
      onProgress: () => {},
      onForgotten: async () => {},
      onFailure: (error) => {
        throw error;
      },
    });
    this.ended = lanes.run(this.end.signal);
  }

  /** From now on only what `holds` says is held back. */
  release(holds: (frames: readonly Frame[]) => boolean): void {
    this.holds = holds;
    const released = this.held.filter(({ frames }) => !holds(frames));
    this.held = this.held.filter(({ frames }) => holds(frames));
    for (const { acknowledged } of released) acknowledged();
  }

  async close(): Promise<void> {
    this.end.abort();
    await this.ended;
  }
}

test("what the backlog lane passed over stays until the live lane's acknowledgement, also when the connection ends", async (t) => {
  const clock = new MovedClock();
  const buffer = await openBuffer(await temporaryFolder(t), { clock, partBytes: 65_536 });
  await fill(buffer, "bulk", 0, 400);
  clock.aheadUs += 60_000_000;
  const first = new HandConnection(buffer, clock, () => true);
  await until(() => buffer.usage().openEpochs === 2);
  for (let n = 0; n < 30; n += 10) {
    await fill(buffer, "live", n, n + 10);
    await fill(buffer, "bulk", 400 + n, 410 + n);
  }
  await until(() => numbers(first.frames, "live").length === 30);
  // When its turn comes it is a backlog as well.
  clock.aheadUs += 5_000_000;
  first.release((frames) => frames.some(({ stream }) => stream === "live"));
  await until(() => numbers(first.frames, "bulk").length === 430 && buffer.usage().waitingRecords <= 60);
  await first.close();
  const waiting = await buffer.read(undefined, 1_000_000);
  assert.deepEqual(numbers(waiting, "live"), upTo(30), "none of them is forgotten");
  const second = new HandConnection(buffer, clock, () => false);
  await until(() => buffer.usage().waitingBytes === 0);
  assert.deepEqual(numbers(second.frames, "live"), upTo(30));
  await second.close();
  await buffer.close();
});

type Step =
  | { readonly do: "append"; readonly stream: string; readonly count: number }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "later"; readonly seconds: number }
  | { readonly do: "cut" | "busy" | "restart" | "hold" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("append" as const),
      stream: fc.constantFrom("bulk", "live", "other"),
      count: fc.integer({ min: 1, max: 120 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 15 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("later" as const), seconds: fc.integer({ min: 1, max: 300 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("cut" as const, "busy" as const, "restart" as const, "hold" as const),
    }),
  },
);

/** One life of a device: its buffer is opened again and again, its gateway stays. */
class Life {
  readonly stored = new StoredFrames();
  readonly #clock = new MovedClock();
  readonly #rules = new StandInRules();
  readonly #dir: string;
  readonly #port: number;
  readonly #counts = new Map<string, number>();
  #buffer!: RecordBuffer;
  #uplink!: MqttUplink;
  #trouble: "cut" | "busy" | undefined;

  constructor(gateway: StandInBroker, port: number, dir: string) {
    this.#dir = dir;
    this.#port = port;
    gateway.onDrained = (epochs) => this.stored.forget(epochs);
    gateway.onFrames = (frames) => {
      const trouble = this.#trouble;
      this.#trouble = undefined;
      // A connection may also break after all was stored.
      if (trouble !== "busy") this.stored.take(frames);
      return trouble ?? "ack";
    };
  }

  async start(): Promise<void> {
    this.#buffer = await openBuffer(this.#dir, { clock: this.#clock, partBytes: 16_384 });
    this.#uplink = await uplink(this.#port, this.#buffer, this.#clock, {
      rules: this.#rules,
      publishBytes: 20_000,
      windowBytes: 60_000,
    });
  }

  async stop(): Promise<void> {
    await this.#uplink.close();
    await this.#buffer.close();
  }

  async run(next: Step): Promise<void> {
    if (next.do === "append") {
      const from = this.#counts.get(next.stream) ?? 0;
      this.#counts.set(next.stream, from + next.count);
      await fill(this.#buffer, next.stream, from, from + next.count, 1_500);
    } else if (next.do === "wait") await new Promise((resolve) => setTimeout(resolve, next.ms));
    else if (next.do === "later") this.#clock.aheadUs += next.seconds * 1_000_000;
    else if (next.do === "hold") this.#rules.toggle("other");
    else if (next.do === "restart") {
      await this.stop();
      await this.start();
    } else this.#trouble = next.do;
  }

  async finish(): Promise<void> {
    if (this.#rules.held.size > 0) this.#rules.toggle("other");
    await until(() => this.#buffer.usage().waitingBytes === 0);
  }

  check(): void {
    for (const [stream, count] of this.#counts) {
      const frames = this.stored.frames.filter((frame) => frame.stream === stream);
      const found = numbers(frames, stream);
      assert.deepEqual(
        [...found].sort((a, b) => a - b),
        upTo(count),
        `each record of ${stream} once`,
      );
      if (stream !== "live") assert.deepEqual(found, upTo(count), `${stream} in its order`);
      for (const epoch of new Set(frames.map((frame) => frame.epoch))) {
        const mine = numbers(
          frames.filter((frame) => frame.epoch === epoch),
          stream,
        );
        assert.deepEqual(
          mine,
          [...mine].sort((a, b) => a - b),
          `${stream} in its order within an epoch`,
        );
      }
    }
  }
}

test("whatever breaks, every record is stored once, and in order within its epoch", async (t) => {
  const gateway = new StandInBroker();
  const port = await gateway.start(t);
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 10, maxLength: 40 }),
      fc.integer({ min: 0, max: 3 }),
      async (steps, ackDelayMs) => {
        gateway.ackDelayMs = ackDelayMs;
        const life = new Life(gateway, port, await temporaryFolder(t));
        await life.start();
        try {
          for (const next of steps) await life.run(next);
          await life.finish();
        } finally {
          await life.stop();
        }
        life.check();
      },
    ),
    { numRuns: 12 },
  );
});
