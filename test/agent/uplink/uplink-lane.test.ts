import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import type { Batch } from "../../../agent/uplink/batch.ts";
import type { UplinkRules } from "../../../agent/uplink/link-rules.ts";
import { MqttUplink } from "../../../agent/uplink/mqtt-uplink.ts";
import { Pacer } from "../../../agent/uplink/pacing.ts";
import { type Packed, UplinkLane } from "../../../agent/uplink/uplink-lane.ts";
import { uplinkMeters } from "../../../agent/uplink/uplink-meters.ts";
import { decodeFrames, type Frame } from "../../../protocol/frame.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { StandInBroker } from "./stand-in-broker.ts";
import { StandInRules } from "./stand-in-rules.ts";

const plainly = async (frames: readonly Frame[]): Promise<Packed> => {
  const payload = Buffer.concat(frames.map(({ bytes }) => bytes));
  return { payload, frameBytes: payload.length };
};

/** Records of 1 kB, each a frame of its own, that wait. */
async function bufferOf(t: TestContext, records: number): Promise<RecordBuffer> {
  const buffer = await openBuffer(await temporaryFolder(t));
  for (let n = 0; n < records; n++) await buffer.append([record(`${n}`.padEnd(1_000))]);
  t.after(() => buffer.close());
  return buffer;
}

interface Trip {
  /** What was published, in that order. */
  readonly sent: number[];
  /** So that the lane ends with its turn. */
  readonly end: () => void;
  /** How it ended: undefined as its turn did. */
  readonly ran: Promise<Error | undefined>;
}

/** A lane of publishes of about two frames, each of which is acknowledged soon. */
function lane(
  t: TestContext,
  buffer: RecordBuffer,
  rules: UplinkRules | undefined,
  pack: (frames: readonly Frame[]) => Promise<Packed> = plainly,
): Trip {
  const sent: number[] = [];
  const turn = new AbortController();
  const acknowledged = async ({ upTo }: Batch): Promise<void> => {
    for (const { epoch, sequence } of upTo) await buffer.ack(epoch, sequence);
  };
  const made = new UplinkLane(
    {
      name: "in-order",
      buffer,
      clock: systemClock,
      meters: uplinkMeters(new Metrics(), () => ({ connected: true, inFlightBytes: 0, split: false })),
      from: undefined,
      publishBytes: 2_500,
      windowBytes: 30_000,
      rules,
      packer: { pack },
      duty: () => "send",
      publish: (payload, done) => {
        sent.push(...texts(decodeFrames(payload)).map(Number));
        setImmediate(done);
      },
      onAcknowledged: (batch) => void acknowledged(batch),
    },
    turn.signal,
  );
  const end = (): void => turn.abort();
  t.after(end);
  const ran = made.run().then(
    () => undefined,
    (error: unknown) => error as Error,
  );
  return { sent, end, ran };
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Whatever the lane that failed had sent, the next one sends all that is behind it. */
async function sentWithTheNext(t: TestContext, buffer: RecordBuffer, first: Trip): Promise<number[]> {
  const second = lane(t, buffer, undefined);
  await until(() => buffer.usage().waitingRecords === 0);
  second.end();
  assert.equal(await second.ran, undefined);
  return [...new Set([...first.sent, ...second.sent])];
}

test("a publish that is refused ends the lane: none behind it leaves, and the next lane sends it", {
  timeout: 120_000,
}, async (t) => {
  const buffer = await bufferOf(t, 20);
  const first = lane(t, buffer, new StandInRules({ refused: 3 }));
  let failure: Error | undefined;
  void first.ran.then((error) => (failure = error));
  await until(() => failure !== undefined || first.sent.includes(19));
  assert.deepEqual(first.sent, upTo(first.sent.length), "without a hole");
  assert.match(String(failure), /was closed/);
  assert.ok(first.sent.length >= 2 && first.sent.length < 20, `${first.sent.length} records left`);
  assert.deepEqual(await sentWithTheNext(t, buffer, first), upTo(20));
});

test("what waits for its pace is not overtaken when the pacer is closed before the turn ends", {
  timeout: 120_000,
}, async (t) => {
  const buffer = await bufferOf(t, 20);
  const pacer = new Pacer(systemClock, 4_000);
  const first = lane(t, buffer, Object.assign(new StandInRules(), { pacer }));
  await until(() => pacer.waitedMs > 0);
  pacer.close();
  assert.match(String(await first.ran), /was closed/);
  assert.ok(first.sent.length < 20, `${first.sent.length} records left`);
  assert.deepEqual(first.sent, upTo(first.sent.length), "without a hole");
  assert.deepEqual(await sentWithTheNext(t, buffer, first), upTo(20));
});

test("a publish that cannot be packed ends the lane, also when nothing comes behind it", {
  timeout: 120_000,
}, async (t) => {
  const buffer = await bufferOf(t, 2);
  const first = lane(t, buffer, undefined, async () => {
    throw new Error("no memory");
  });
  assert.match(String(await first.ran), /no memory/);
  assert.deepEqual(first.sent, []);
  assert.deepEqual(await sentWithTheNext(t, buffer, first), upTo(2));
});

test("a refused publish costs a connection, and the gateway misses nothing", {
  timeout: 120_000,
}, async (t) => {
  const buffer = await bufferOf(t, 40);
  const gateway = new StandInBroker();
  const up = new MqttUplink({
    url: `mqtt://127.0.0.1:${await gateway.start(t)}`,
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    publishBytes: 2_500,
    windowBytes: 30_000,
    statusSeconds: 3_600,
    status: () => {
      throw new Error("not asked for");
    },
    backoff: new Backoff(2, 20),
    rules: new StandInRules({ refused: 4 }),
  });
  t.after(() => up.close());
  await up.start();
  await until(() => buffer.usage().waitingRecords === 0);
  assert.equal(gateway.connections, 2);
  assert.deepEqual(texts(gateway.unique).map(Number), upTo(40));
});
