/** SIGTERM ends both programs within 10 s, whoever is connected and whatever cannot be finished. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, writeFile } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import mqtt from "mqtt";
import { freePorts, Program, type ProgramName } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

/** What the programs allow themselves; the units leave 5 s more. */
const DRAIN_MS = 10_000;

async function started(t: TestContext, name: ProgramName, config: object): Promise<Program> {
  const folder = await mkdtemp(join(tmpdir(), `headwater-drain-${name}-`));
  const file = join(folder, `${name}.yaml`);
  await writeFile(file, JSON.stringify({ dataDir: "data", ...config }));
  const program = new Program(name, file, join(folder, "log"));
  t.after(async () => {
    await program.kill();
    await removeFolder(folder);
  });
  await program.ready;
  return program;
}

async function drains(program: Program): Promise<void> {
  const began = performance.now();
  assert.equal(await program.stop(DRAIN_MS + 5_000), 0);
  assert.ok(performance.now() - began < DRAIN_MS, `took ${performance.now() - began} ms`);
}

/** Takes connections and says nothing, as a machine whose program hangs. */
async function blackHole(t: TestContext): Promise<{ server: Server; port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}).resume());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { server, port: (server.address() as { port: number }).port };
}

async function open(t: TestContext, port: number, first: string): Promise<void> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  t.after(() => socket.destroy());
  await once(socket, "connect");
  socket.write(first);
}

test("an agent whose gateway hangs drains in time", async (t) => {
  const { server, port } = await blackHole(t);
  const [sensorPort, httpPort] = await freePorts(2);
  const agent = await started(t, "agent", {
    device: "pi-1",
    gateway: { mqtt: `mqtt://127.0.0.1:${port}`, rtsp: `rtsp://127.0.0.1:${port}` },
    http: { port: httpPort },
    sources: [{ name: "local", type: "mqtt", port: sensorPort }],
    // Takes two records or so; then a sensor waits for its acknowledgement.
    buffer: { maxBytes: 400 },
  });
  // The test itself runs in another process, so the agent may have been there already.
  assert.ok(server.listening);
  const sensor = mqtt.connect(`mqtt://127.0.0.1:${sensorPort}`, { clientId: "s1", reconnectPeriod: 0 });
  t.after(() => sensor.endAsync(true));
  sensor.on("error", () => {});
  await sensor.publishAsync("farm/temperature", "21.5", { qos: 1 });
  for (let n = 0; n < 20; n++) sensor.publish("farm/temperature", "2".repeat(100), { qos: 1 });
  await open(t, httpPort!, "GET /metr");
  await drains(agent);
});

test("a gateway with clients that never finish drains in time", async (t) => {
  const [http, mqttPort, rtsp] = await freePorts(3);
  const gateway = await started(t, "gateway", {
    http: { port: http },
    mqtt: { port: mqttPort },
    rtsp: { port: rtsp },
    streams: [{ name: "sensors", shards: 1 }],
    log: "warn",
  });
  const client = mqtt.connect(`mqtt://127.0.0.1:${mqttPort}`, { clientId: "c1", reconnectPeriod: 0 });
  t.after(() => client.endAsync(true));
  client.on("error", () => {});
  await new Promise((resolve) => client.once("connect", resolve));
  await open(t, http!, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf");
  await open(t, http!, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  await open(t, rtsp!, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n");
  await open(t, mqttPort!, "\x10");
  await drains(gateway);
});
