/** A gateway whose disk is full refuses for a while; its agents keep what they have, and keep quiet. */
import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { RecordBuffer } from "../../agent/buffer/record-buffer.ts";
import { openLevelRecordBuffer } from "../../agent/buffer/records/level-record-buffer.ts";
import { MqttUplink } from "../../agent/uplink/mqtt-uplink.ts";
import { agentConfig } from "../../config/agent-config.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";
import { Metrics } from "../../runtime/metrics.ts";
import { freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { storedRecords } from "../support/stored-records.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";

const KEY = { accessKeyId: "HEADWATER1", secretAccessKey: "a secret of the test" };
const STREAM = "sensors";
const FULL_MS = 10_000;

async function startGateway(t: TestContext, disk: SmallDisk) {
  const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
  const dir = await mkdtemp(join(tmpdir(), "headwater-full-"));
  const file = join(dir, "gateway.yaml");
  const config = {
    dataDir: join(disk.path, "data"),
    http: { port: http },
    mqtt: { port: mqtt },
    rtsp: { port: rtsp },
    accessKeys: [{ id: KEY.accessKeyId, secret: KEY.secretAccessKey }],
    streams: [{ name: STREAM, shards: 1 }],
    log: "error",
  };
  await writeFile(file, JSON.stringify(config));
  const gateway = new Program("gateway", file, join(dir, "log"));
  t.after(async () => {
    await gateway.kill();
    await removeFolder(dir);
    await disk.remove();
  });
  await gateway.ready;
  return { http, mqtt };
}

/** An agent's buffer and uplink, as its config has them by default. */
async function startAgent(t: TestContext, port: number) {
  const dir = await mkdtemp(join(tmpdir(), "headwater-full-agent-"));
  const { buffer: buffering, uplink: sending } = agentConfig.parse({ device: "pi-1" });
  const metrics = new Metrics();
  const shared = { device: "pi-1", clock: systemClock, log: silentLog, metrics };
  const buffer = await openLevelRecordBuffer({ ...shared, ...buffering, dir, commitDelayMs: 5 });
  const status = () => ({
    version: "0",
    buffer: { waitingRecords: 0, waitingBytes: 0, maxBytes: 1, oldestAgeMs: 0, droppedRecords: 0 },
    sources: [],
    residentBytes: 1,
  });
  const url = `mqtt://127.0.0.1:${port}`;
  const uplink = new MqttUplink({ ...shared, ...sending, compression: "never", url, buffer, status });
  await uplink.start();
  t.after(async () => {
    await uplink.close();
    await buffer.close();
    await removeFolder(dir);
  });
  return { buffer, metrics };
}

async function append(buffer: RecordBuffer, from: number, count: number): Promise<void> {
  const appends: Promise<void>[] = [];
  for (let n = from; n < from + count; n++) {
    const payload = Buffer.from(String(n).padEnd(1_000));
    appends.push(
      buffer.append([{ stream: STREAM, partitionKey: `k${n % 8}`, timeUs: systemClock.nowUs(), payload }]),
    );
  }
  await Promise.all(appends);
}

async function drained(buffer: RecordBuffer): Promise<void> {
  while (buffer.usage().waitingRecords > 0) await new Promise((resolve) => setTimeout(resolve, 50));
}

test("while the gateway's disk is full little is sent, and nothing is lost or doubled", async (t) => {
  const disk = await SmallDisk.make(192 << 20);
  if (typeof disk === "string") return t.skip(disk);
  const { http, mqtt } = await startGateway(t, disk);
  const proxy = new TcpProxy({ targetPort: mqtt });
  await proxy.start();
  t.after(() => proxy.close());
  const { buffer, metrics } = await startAgent(t, proxy.port);
  await append(buffer, 0, 500);
  await drained(buffer);

  const makeRoom = await disk.fill();
  // More than recycled segments can take.
  let appended = 500;
  const busy = async () => /^headwater_uplink_busy_total [1-9]/m.test(await metrics.render());
  while (!(await busy())) {
    await append(buffer, appended, 2_000);
    appended += 2_000;
    // However slow it is, more comes only when it has taken this, or has said that it cannot.
    while (buffer.usage().waitingRecords > 0 && !(await busy())) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(appended < 150_000, "the gateway never said that it is full");
  }
  const before = proxy.counts();
  await append(buffer, appended, 3_000);
  appended += 3_000;
  await new Promise((resolve) => setTimeout(resolve, FULL_MS));
  const { upBytes, connections } = proxy.counts();
  const sent = upBytes - before.upBytes;
  t.diagnostic(
    `full for ${FULL_MS} ms: ${connections - before.connections} connections, ${sent} bytes sent in vain, ${appended} records`,
  );
  assert.ok(buffer.usage().waitingRecords > 0);
  assert.ok(connections - before.connections <= 10, `${connections - before.connections} connections`);
  // One window at the most, and a small publish each time that it asks.
  assert.ok(sent < 4 << 20, `${sent} bytes`);

  await makeRoom();
  await drained(buffer);
  const found = await storedRecords({ endpoint: `http://127.0.0.1:${http}`, credentials: KEY }, STREAM);
  assert.equal(found.size, appended);
  for (let n = 0; n < appended; n++) assert.equal(found.get(String(n).padEnd(1_000)), 1, `record ${n}`);
});
