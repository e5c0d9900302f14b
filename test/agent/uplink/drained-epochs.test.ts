import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import type { UplinkRules } from "../../../agent/uplink/link-rules.ts";
import { MqttUplink } from "../../../agent/uplink/mqtt-uplink.ts";
import { parseDrained } from "../../../gateway/ingest/agent-messages.ts";
import { epochName } from "../../../protocol/frame.ts";
import { Backoff } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, record, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { StandInBroker } from "./stand-in-broker.ts";
import { StandInRules } from "./stand-in-rules.ts";

async function uplink(
  t: TestContext,
  gateway: StandInBroker,
  buffer: RecordBuffer,
  rules?: UplinkRules,
): Promise<MqttUplink> {
  const made = new MqttUplink({
    url: `mqtt://127.0.0.1:${await gateway.start(t)}`,
    device: "pi-1",
    buffer,
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    publishBytes: 3_000,
    windowBytes: 30_000,
    statusSeconds: 3_600,
    status: () => {
      throw new Error("not asked for");
    },
    backoff: new Backoff(2, 20),
    rules,
  });
  await made.start();
  return made;
}

/** A promise and what resolves it. */
function signal(): { readonly given: Promise<void>; readonly give: () => void } {
  let give = (): void => {};
  const given = new Promise<void>((resolve) => {
    give = resolve;
  });
  return { given, give };
}

test("an epoch whose last frames are dropped while they are under way is not declared drained before them", async (t) => {
  const dir = await temporaryFolder(t);
  const earlier = await openBuffer(dir, { partBytes: 8_192 });
  for (let n = 0; n < 20; n++) await earlier.append([record(`${n}`.padEnd(1_000))]);
  await earlier.close();
  const buffer = await openBuffer(dir, { partBytes: 8_192, maxBytes: 40_000, whenFull: "drop-oldest" });
  const gateway = new StandInBroker();
  const said: string[] = [];
  gateway.onFrames = (frames) => {
    said.push(...frames.map(({ epoch }) => epochName(epoch)));
    return "ack";
  };
  gateway.onDrained = (epochs) => said.push(...epochs.map((epoch) => `drained ${epoch}`));
  const dropped = signal();
  gateway.ackAfter = dropped.given;
  const rules = new StandInRules({ publishes: 1 });
  const up = await uplink(t, gateway, buffer, rules);
  await gateway.until(() => said.length > 0);
  // The first acknowledgement is on its way, and the next publishes wait for their turn.
  for (let n = 0; n < 39; n++) await buffer.append([record(`new ${n}`.padEnd(1_000))]);
  const drainedEpochs = buffer.drainedEpochs.bind(buffer);
  const [old] = (await drainedEpochs()).map(epochName);
  assert.ok(old, "all of the earlier epoch was dropped");
  const asked = signal();
  buffer.drainedEpochs = () => drainedEpochs().finally(() => setImmediate(asked.give));
  dropped.give();
  await asked.given;
  rules.open();
  await gateway.until(() => said.includes(`drained ${old}`));
  await up.close();
  await buffer.close();
  assert.ok(said.filter((one) => one === old).length > 2, "some of it was under way");
  assert.ok(said.lastIndexOf(old) < said.indexOf(`drained ${old}`), said.join(" "));
});

test("more epochs than a gateway takes in one message are declared drained in several", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const many = Array.from({ length: 1_700 }, (_, n) => BigInt(n + 1));
  const forgotten: bigint[] = [];
  buffer.drainedEpochs = async () => many;
  const done = signal();
  buffer.forgetEpoch = async (epoch) => {
    if (forgotten.push(epoch) === many.length) done.give();
  };
  const gateway = new StandInBroker();
  const told: string[] = [];
  gateway.onDrained = (epochs) => {
    const message = Buffer.from(JSON.stringify({ epochs }));
    told.push(...(parseDrained(message)?.epochs ?? []));
  };
  const up = await uplink(t, gateway, buffer);
  await done.given;
  assert.deepEqual(told, many.map(epochName));
  assert.deepEqual(forgotten, many);
  await up.close();
  await buffer.close();
});
