import assert from "node:assert/strict";
import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { Agent } from "../../../agent/agent.ts";
import { agentConfig } from "../../../config/agent-config.ts";
import { parseConfig } from "../../../config/loader.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { until } from "./source-parts.ts";

test("one agent runs all kinds of sources, and those that fail hurt no other", async (t) => {
  const folder = await temporaryFolder(t);
  const log = join(folder, "app.log");
  await writeFile(log, "first\n");
  const text = `
device: pi-1
http: { port: 0 }
gateway: { mqtt: "mqtt://127.0.0.1:1" }
sources:
  - { name: log, type: file, path: "${log}", pollMs: 20 }
  - { name: meter, type: command, command: [sh, -c, "while :; do echo '{\\"n\\":1}'; sleep 0.1; done"] }
  - { name: pi, type: host, everySeconds: 0.1 }
  - { name: door, type: http, port: 0 }
  - { name: local, type: mqtt, port: 0 }
  - { name: board, type: serial, path: ${folder}/no-such-tty, format: nmea }
  - { name: rs485, type: modbus, path: ${folder}/no-such-line, registers: [{ field: a, address: 0 }] }
  - { name: broken, type: command, command: [no-such-program-here], shape: { filter: { jq: ".a" } } }
  - { name: unfiltered, type: host, everySeconds: 0.1, shape: { filter: { javascript: "record.a <" } } }
`;
  const config = parseConfig("agent.yaml", text, agentConfig, {});
  const agent = new Agent({
    config,
    dataDir: join(folder, "data"),
    clock: systemClock,
    log: silentLog,
    metrics: new Metrics(),
    environment: { PATH: process.env.PATH },
    onFailure: (error) => assert.fail(error),
  });
  t.after(() => agent.close());
  await agent.start();
  const source = (name: string) => agent.status().sources.find((one) => one.name === name)!;
  const well = ["log", "meter", "pi"];
  await until(() => well.every((name) => source(name).records > 0));
  await until(() => [...well, "door", "local"].every((name) => source(name).state === "running"));
  for (const name of ["board", "rs485", "broken", "unfiltered"]) {
    await until(() => source(name).lastError !== undefined);
    assert.equal(source(name).records, 0);
  }
  assert.match(source("unfiltered").lastError!, /FILTER_INVALID: unfiltered: .*Unexpected token/);
  assert.match(source("board").lastError!, /SERIAL_PORT: .*no-such-tty.*\(.*by-id/);
  const before = source("log").records;
  await appendFile(log, "second\n");
  await until(() => source("log").records > before);
  await agent.close();
  assert.ok(agent.status().sources.every(({ state }) => state === "stopped"));
});

test("a wrong source in the config is refused with the key and what would be accepted", () => {
  const problems = (source: string): string => {
    try {
      parseConfig("agent.yaml", `device: a\nsources: [${source}]`, agentConfig, {});
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.match(problems("{name: a, type: http, host: 0.0.0.0}"), /sources\[0\].tokens: needed/);
  assert.match(
    problems("{name: a, type: file, path: /x, multiline: {start: '('}}"),
    /multiline.start: a regular expression/,
  );
  assert.match(problems("{name: a, type: host, shape: {filter: {}}}"), /exactly one of javascript and jq/);
  assert.match(problems("{name: a, type: host, shape: {deadband: {fields: {t: x}}}}"), /percentage/);
  assert.match(
    problems("{name: a, type: serial, path: /x, format: cobs, cobs: {payload: layout}}"),
    /needs the layout/,
  );
  assert.match(problems("{name: a, type: host}, {name: a, type: host}"), /a is taken/);
  assert.equal(
    problems("{name: a, type: modbus, path: /x, registers: [{field: t, address: 0, as: f32}]}"),
    "",
  );
});
