/** The commands an operator types, on real programs: token, join, run, a crash of the gateway, revoke. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import mqtt from "mqtt";
import { Credentials, tlsOptions } from "../../agent/identity/credentials.ts";
import { callGateway } from "../../agent/identity/gateway-call.ts";
import { STATUS_PATH, type StatusAnswer } from "../../protocol/joining.ts";
import { eventually, freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function command(program: "agent" | "gateway", ...args: string[]): Promise<Ran> {
  const main = scriptPath(`../../${program}/main.ts`, import.meta.url);
  return new Promise((resolve) => {
    execFile(process.execPath, [...nodeFlags, main, ...args], (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
  });
}

test("two commands bring a device to the gateway, and a third takes it away", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "hw-two-commands-"));
  const log = join(dir, "log");
  const [http, plainMqtt, plainRtsp, https, mqtts, rtsps, local, page] = await freePorts(8);
  const gatewayYaml = join(dir, "gateway.yaml");
  await writeFile(
    gatewayYaml,
    `dataDir: gateway
http: {port: ${http}}
mqtt: {port: ${plainMqtt}}
rtsp: {port: ${plainRtsp}}
tls: {https: ${https}, mqtts: ${mqtts}, rtsps: ${rtsps}}
streams: [{name: sensors}]
`,
  );
  const agentYaml = join(dir, "agent.yaml");
  await writeFile(
    agentYaml,
    `# Kept as it is.
device: not-yet
dataDir: agent
http: {port: ${page}}
sources:
  - { name: local, type: mqtt, port: ${local}, stream: sensors } # and this
`,
  );
  const programs: Program[] = [];
  t.after(async () => {
    for (const program of programs) await program.kill();
    await removeFolder(dir);
  });
  const start = async (name: "agent" | "gateway", yaml: string): Promise<Program> => {
    const program = new Program(name, yaml, log);
    programs.push(program);
    await program.ready;
    return program;
  };

  const asleep = await command("gateway", "devices", "list", "--config", gatewayYaml);
  assert.equal(asleep.code, 1);
  assert.match(asleep.err, /^GATEWAY_NOT_RUNNING: /);
  const first = await start("gateway", gatewayYaml);
  const made = await command("gateway", "devices", "token", "pi-1", "--config", gatewayYaml);
  assert.equal(made.code, 0, made.err);
  const token = made.out.trim();
  const joined = await command("agent", "join", `127.0.0.1:${https}`, token, "--config", agentYaml);
  assert.equal(joined.code, 0, joined.err);
  assert.match(joined.out, /the gateway counts 1 record of pi-1/);
  const config = await readFile(agentYaml, "utf8");
  assert.match(config, /^# Kept as it is\.\ndevice: pi-1\n/);
  assert.match(config, /# and this/);

  await start("agent", agentYaml);
  const sensor = await mqtt.connectAsync(`mqtt://127.0.0.1:${local}`);
  t.after(() => sensor.endAsync(true));
  await sensor.publishAsync("greenhouse/temperature", "21.5", { qos: 1 });
  const tls = tlsOptions((await Credentials.open(join(dir, "agent")))!.identity);
  const address = { host: "127.0.0.1", port: https! };
  const records = async (): Promise<number> =>
    ((await callGateway(address, { tls }, "GET", STATUS_PATH)) as StatusAnswer).records;
  await eventually("the reading at the gateway", 60_000, async () =>
    (await records()) >= 2 ? true : undefined,
  );

  // The gateway knows its devices again, and they know it.
  await first.kill();
  await start("gateway", gatewayYaml);
  await sensor.publishAsync("greenhouse/temperature", "21.6", { qos: 1 });
  await eventually("the reading after the crash", 60_000, async () =>
    (await records()) >= 1 ? true : undefined,
  );

  assert.equal((await command("gateway", "devices", "revoke", "pi-1", "--config", gatewayYaml)).code, 0);
  const listed = await command("gateway", "devices", "list", "--json", "--config", gatewayYaml);
  assert.equal((JSON.parse(listed.out) as { state: string }[])[0]!.state, "revoked");
  await assert.rejects(records(), { code: "GATEWAY_UNREACHABLE" });
  const text = await readFile(log, "utf8");
  assert.ok(!text.includes(token.split(".").at(-2)!) && !text.includes("PRIVATE KEY"));
});
