/** Programs that are killed while their disk is full start again on it, and do what needs no room. */
import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { KinesisClient, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import mqtt from "mqtt";
import { eventually, freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { storedRecords } from "../support/stored-records.ts";

const KEY = { accessKeyId: "HEADWATER1", secretAccessKey: "a secret of the test" };
const STREAM = "sensors";
const BATCH = 500;

async function temporaryFolder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-full-restart-"));
  t.after(() => removeFolder(dir));
  return dir;
}

/** A disk, or undefined where the test was skipped for want of one. */
async function smallDisk(t: TestContext): Promise<SmallDisk | undefined> {
  const disk = await SmallDisk.make(192 << 20);
  if (typeof disk === "string") return void t.skip(disk);
  t.after(() => disk.remove());
  return disk;
}

async function gatewayFor(t: TestContext, dataDir: string) {
  const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
  const dir = await temporaryFolder(t);
  const file = join(dir, "gateway.yaml");
  const config = {
    dataDir,
    http: { port: http },
    mqtt: { port: mqtt },
    rtsp: { port: rtsp },
    accessKeys: [{ id: KEY.accessKeyId, secret: KEY.secretAccessKey }],
    streams: [{ name: STREAM, shards: 2 }],
    log: "warn",
  };
  await writeFile(file, JSON.stringify(config));
  const access = { endpoint: `http://127.0.0.1:${http}`, credentials: KEY };
  const start = async (): Promise<Program> => {
    const gateway = new Program("gateway", file, join(dir, "log"));
    t.after(() => gateway.kill());
    await gateway.ready;
    return gateway;
  };
  return { mqtt, access, start };
}

test("a gateway that is killed on a full disk starts on it again, is read, and takes records once there is room", async (t) => {
  const disk = await smallDisk(t);
  if (disk === undefined) return;
  const { access, start } = await gatewayFor(t, join(disk.path, "data"));
  const kinesis = new KinesisClient({ ...access, region: "us-east-1", maxAttempts: 1 });
  t.after(() => kinesis.destroy());
  const put = (first: number) => {
    const text = (n: number) => String(n).padEnd(500);
    const Records = Array.from({ length: BATCH }, (_, n) => ({
      PartitionKey: `k${n % 16}`,
      Data: Buffer.from(text(first + n)),
    }));
    return kinesis.send(new PutRecordsCommand({ StreamName: STREAM, Records }));
  };
  let gateway = await start();
  for (let batch = 0; batch < 4; batch++) await put(batch * BATCH);
  await gateway.kill();
  const makeRoom = await disk.fill();

  // Twice, as what the first start took of the reserve must be there for the second.
  for (let round = 0; round < 2; round++) {
    gateway = await start();
    assert.equal((await storedRecords(access, STREAM)).size, 4 * BATCH);
    await assert.rejects(put(4 * BATCH), { name: "ProvisionedThroughputExceededException" });
    if (round === 0) await gateway.kill();
  }

  await makeRoom();
  await eventually("records are taken again", 60_000, () => put(4 * BATCH));
  const found = await storedRecords(access, STREAM);
  assert.equal(found.size, 5 * BATCH);
  assert.ok([...found.values()].every((times) => times === 1));
});

test("an agent that is killed on a full disk starts on it again, and sends away what it has", async (t) => {
  const disk = await smallDisk(t);
  if (disk === undefined) return;
  const gatewayFolder = await temporaryFolder(t);
  const gateway = await gatewayFor(t, join(gatewayFolder, "data"));
  const [status, broker] = (await freePorts(2)) as [number, number];
  const dir = await temporaryFolder(t);
  const file = join(dir, "agent.yaml");
  const config = {
    device: "pi-1",
    dataDir: join(disk.path, "agent"),
    gateway: { mqtt: `mqtt://127.0.0.1:${gateway.mqtt}` },
    http: { port: status },
    sources: [{ name: "local", type: "mqtt", port: broker, stream: STREAM }],
    log: "warn",
  };
  await writeFile(file, JSON.stringify(config));
  const start = async (): Promise<Program> => {
    const agent = new Program("agent", file, join(dir, "log"));
    t.after(() => agent.kill());
    await agent.ready;
    return agent;
  };
  const agent = await start();
  const sensor = await mqtt.connectAsync(`mqtt://127.0.0.1:${broker}`, { reconnectPeriod: 0 });
  const readings = Array.from({ length: BATCH }, (_, n) => JSON.stringify({ n, text: "x".repeat(500) }));
  // Acknowledged: on the agent's disk.
  await Promise.all(readings.map((reading) => sensor.publishAsync("greenhouse/air", reading, { qos: 1 })));
  sensor.on("error", () => {});
  await agent.kill();
  await sensor.endAsync(true);
  await disk.fill();

  await gateway.start();
  await start();
  const found = await eventually("all have come", 60_000, async () => {
    const all = await storedRecords(gateway.access, STREAM);
    return all.size >= BATCH ? all : undefined;
  });
  assert.equal(found.size, BATCH);
  assert.ok([...found.values()].every((times) => times === 1));
});
