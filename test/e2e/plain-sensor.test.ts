import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import mqtt from "mqtt";
import { RawSensor } from "../gateway/ingest/door.ts";
import { deliveredLines } from "../support/delivered.ts";
import { eventually, freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

const IN_FLIGHT = 20;
const KILLS = 2;
const BETWEEN_KILLS = 400;

test("a plain sensor's readings are delivered once each, though the gateway is killed and they are sent again", {
  timeout: 600_000,
}, async (context) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-plain-"));
  const [http, port, rtsp] = (await freePorts(3)) as [number, number, number];
  const config = join(dir, "gateway.yaml");
  await writeFile(
    config,
    `
dataDir: data
http: { port: ${http} }
mqtt: { port: ${port} }
rtsp: { port: ${rtsp} }
streams: [{ name: plants, shards: 2 }]
rules: [{ topic: "plant/#", stream: plants }]
delivery: [{ name: plants, stream: plants, bufferSeconds: 1, destination: { type: files, path: delivered } }]
`,
  );
  const begin = async (): Promise<Program> => {
    const program = new Program("gateway", config, join(dir, "gateway.log"));
    await program.ready;
    return program;
  };
  let gateway = await begin();
  context.after(async () => {
    await gateway.kill();
    await removeFolder(dir);
  });

  // Stored, and its PUBACK never heard of: without DUP, as mqtt.js sends again.
  const before = await new RawSensor(port).connect("by-hand");
  await before.acknowledged(500, "plant/hand", '{"n":"a"}');
  await gateway.kill();
  gateway = await begin();
  const after = await new RawSensor(port).connect("by-hand");
  await after.acknowledged(500, "plant/hand", '{"n":"a"}');
  await after.acknowledged(501, "plant/hand", '{"n":"b"}');
  await after.vanish();

  const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
    clientId: "by-library",
    protocolVersion: 4,
    reconnectPeriod: 100,
  });
  context.after(() => client.endAsync(true));
  client.on("error", () => {});
  let sent = 0;
  let acknowledged = 0;
  const publishOn = (): void => {
    while (sent - acknowledged < IN_FLIGHT && sent < (KILLS + 1) * BETWEEN_KILLS) {
      client.publish("plant/library", JSON.stringify({ n: sent++ }), { qos: 1 }, () => {
        acknowledged++;
        publishOn();
      });
    }
  };
  publishOn();
  for (let kill = 1; kill <= KILLS; kill++) {
    await eventually("readings are stored", 60_000, async () =>
      acknowledged >= kill * BETWEEN_KILLS - 200 ? true : undefined,
    );
    await gateway.kill();
    gateway = await begin();
  }
  await eventually("every reading is acknowledged", 60_000, async () =>
    acknowledged === (KILLS + 1) * BETWEEN_KILLS ? true : undefined,
  );

  const expected = ["a", "b", ...Array.from({ length: sent }, (_, n) => String(n))].sort();
  const delivered = async (): Promise<string[]> =>
    (await deliveredLines(join(dir, "delivered"))).map(({ json }) => String(json.n)).sort();
  await eventually("all is delivered", 60_000, async () =>
    (await delivered()).length >= expected.length ? true : undefined,
  );
  assert.deepEqual(await delivered(), expected);
});
