import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";
import { Agent } from "../../../agent/agent.ts";
import { agentConfig } from "../../../config/agent-config.ts";
import { parseConfig } from "../../../config/loader.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openDoor, stored } from "../../gateway/ingest/door.ts";
import { temporaryFolder } from "../buffer/records/buffer-fixture.ts";

test("an agent that wakes up in 1970 learns the time from its gateway, and its records arrive with it", async (t) => {
  const folder = await temporaryFolder(t);
  const { url, streams } = await openDoor(t);
  const text = `
device: pi-1
http: { port: 0 }
gateway: { mqtt: "${url}" }
sources:
  - { name: meter, type: command, command: [sh, -c, "while :; do echo '{\\"n\\":1}'; sleep 0.05; done"], stream: sensors }
`;
  const agent = new Agent({
    config: parseConfig("agent.yaml", text, agentConfig, {}),
    dataDir: join(folder, "data"),
    clock: systemClock,
    time: {
      wallUs: () => performance.now() * 1_000,
      bootUs: () => performance.now() * 1_000,
      bootId: "boot-1",
      hasClock: false,
      synchronised: async () => false,
    },
    log: silentLog,
    metrics: new Metrics(),
    environment: { PATH: process.env.PATH },
    onFailure: (error) => assert.fail(error),
  });
  const fromMs = Date.now();
  await agent.start();
  let records: string[] = [];
  const endMs = Date.now() + 120_000;
  while (records.length < 10 && Date.now() < endMs) {
    records = await stored(streams);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { clock } = agent.status();
  const statusMs = Date.now();
  // Before its folder goes.
  await agent.close();
  assert.ok(records.length >= 10);
  // What the gateway's answer tells is as good as it was quick.
  const offMs = 1_000 + (clock.boundMs ?? 0);
  for (const record of records) {
    const timeMs = Date.parse((JSON.parse(record) as { time: string }).time);
    assert.ok(timeMs >= fromMs - offMs && timeMs <= Date.now() + offMs, record);
  }
  assert.equal(clock.by, "gateway");
  assert.ok(Math.abs(Date.parse(clock.time!) - statusMs) < offMs);
});
