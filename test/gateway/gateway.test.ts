/** The gateway put together from a config, as its doors and its folder look from outside. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, stat } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { parseConfig } from "../../config/loader.ts";
import { type Gateway, startGateway } from "../../gateway/gateway.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import { removeFolder } from "../support/remove-folder.ts";

interface Started {
  readonly gateway: Gateway;
  readonly dir: string;
  /** All that was logged, as JSON. */
  readonly logged: string[];
}

async function start(t: TestContext, yaml: string, http = "hostNames: [Farm.example]"): Promise<Started> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-gateway-"));
  const logged: string[] = [];
  const note = (fields: object, text?: string): void => void logged.push(JSON.stringify([fields, text]));
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };
  const doors = `http: {port: 0, ${http}}\nmqtt: {port: 0}\nrtsp: {port: 0}\n`;
  const config = parseConfig("gateway.yaml", `dataDir: data\n${doors}${yaml}`, gatewayConfig, {});
  const gateway = await startGateway(config, { configDir: dir, clock: systemClock, log });
  t.after(async () => {
    await gateway.close();
    await removeFolder(dir);
  });
  return { gateway, dir, logged };
}

function get(address: string, path: string, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const ask = request(`${address}${path}`, { headers: { host } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode!);
    });
    ask.on("error", reject);
    ask.end();
  });
}

test("browsers are answered under the configured names, and under no other", async (t) => {
  const { gateway } = await start(t, "");
  const { http } = gateway.addresses;
  const { port } = new URL(http);
  for (const [host, status] of [
    [`127.0.0.1:${port}`, 200],
    [`localhost:${port}`, 200],
    ["farm.example", 200],
    [`FARM.example:${port}`, 200],
    ["farm.example.evil.test", 403],
    ["evil.test", 403],
  ] as const) {
    assert.equal(await get(http, "/healthz", host), status, host);
  }
});

test("a gateway on an IPv6 address says where it is, and its link opens the console", async (t) => {
  if (networkInterfaces().lo?.every(({ family }) => family !== "IPv6") ?? true) return t.skip("no IPv6 here");
  const { gateway } = await start(t, "", 'host: "::1"');
  assert.match(gateway.addresses.http, /^http:\/\/\[::1\]:\d+$/);
  const opened = await fetch(gateway.signInUrl(), { redirect: "manual" });
  assert.equal(opened.status, 303);
});

test("nobody else on this machine can look into the folder, and the made key is its owner's alone", async (t) => {
  const { dir, logged } = await start(t, "");
  assert.equal((await stat(join(dir, "data"))).mode & 0o777, 0o700);
  const file = join(dir, "data", "access-key.json");
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const { secretAccessKey } = JSON.parse(await readFile(file, "utf8")) as { secretAccessKey: string };
  assert.ok(logged.length > 0 && !logged.join("\n").includes(secretAccessKey));
});

test("unless told otherwise every door is this machine's alone", async (t) => {
  const { gateway } = await start(t, "");
  const outside = Object.values(networkInterfaces())
    .flat()
    .find((one) => one !== undefined && one.family === "IPv4" && !one.internal)?.address;
  if (outside === undefined) return t.skip("this machine has no other address");
  for (const address of Object.values(gateway.addresses)) {
    const code = await new Promise<string>((resolve) => {
      const socket = connect(Number(/:(\d+)$/.exec(address)![1]), outside);
      socket.once("connect", () => {
        socket.destroy();
        resolve("connected");
      });
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
    });
    assert.equal(code, "ECONNREFUSED", address);
  }
});
