import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { HealthServer } from "../../../agent/health.ts";
import type { AgentStatus } from "../../../agent/status/agent-status.ts";
import { addressOf, showStatus } from "../../../agent/status/status-command.ts";
import { pause } from "../../../runtime/backoff.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { launchBrowser } from "../../support/browser.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { madeStatus } from "./made-status.ts";

const HOSTILE = `<img src=x onerror="injected=1">`;

async function serve(t: TestContext, status: () => AgentStatus): Promise<HealthServer> {
  const server = new HealthServer({ host: "127.0.0.1", port: 0, metrics: new Metrics(), status });
  await server.start();
  t.after(() => server.close());
  return server;
}

async function configFor(t: TestContext, port: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "hw-status-"));
  t.after(() => removeFolder(folder));
  const file = join(folder, "agent.yaml");
  // The rest of the config, with its secrets, is none of the command's business.
  await writeFile(file, `device: pi-1\nhttp: { port: ${port} }\ngateway: { password: "\${NOT_THERE}" }\n`);
  return file;
}

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly problem: string;
}

async function run(config: string, json = false): Promise<Ran> {
  let [out, problem] = ["", ""];
  const code = await showStatus({
    config,
    json,
    coloured: false,
    environment: {},
    write: (text) => {
      out += text;
    },
    complain: (text) => {
      problem += text;
    },
  });
  return { code, out, problem };
}

test("the command tells by its exit code whether the agent does its work, or cannot be asked", async (t) => {
  let status = madeStatus();
  const server = await serve(t, () => status);
  const config = await configFor(t, server.port);
  const well = await run(config);
  assert.equal(well.code, 0);
  assert.match(well.out, /^pi-1 {2}All is well$/m);
  assert.deepEqual(JSON.parse((await run(config, true)).out), JSON.parse(JSON.stringify(status)));
  status = madeStatus({ faults: ["BUFFER_FAILED: the disk is gone"] });
  const failing = await run(config);
  assert.equal(failing.code, 1);
  assert.match(failing.out, /BUFFER_FAILED: the disk is gone/);
  await server.close();
  const unreached = await run(config);
  assert.equal(unreached.code, 2);
  assert.match(
    unreached.problem,
    /^AGENT_UNREACHABLE: no agent answers at http:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED/,
  );
  assert.equal((await run("/nowhere/agent.yaml")).code, 2);
});

test("without a config the installed one is asked, or the defaults", async (t) => {
  const installed = await configFor(t, 9_999);
  assert.equal(await addressOf(undefined, {}, installed), "http://127.0.0.1:9999");
  assert.equal(await addressOf(undefined, {}, "/nowhere"), "http://127.0.0.1:8081");
});

test("of a config that is no YAML, status shows no line, where a secret may stand", async (t) => {
  const config = await configFor(t, 9_999);
  await writeFile(config, 'http: { port: 9999 }\ngateway: { password: s3cr3t-s3cr3t, mqtt: "mqtt://x }\n');
  await assert.rejects(addressOf(config, {}), ({ code, message }: { code: string; message: string }) => {
    assert.equal(code, "CONFIG_INVALID");
    assert.match(message, /line \d, column 1: something is missing/);
    assert.ok(!message.includes("s3cr3t"), message);
    return true;
  });
});

test("what is wrong with the address of the status page is told without a line, as only that part of the config was read", async (t) => {
  const config = await configFor(t, 9_999);
  await writeFile(config, "device: d\n\nhttp:\n  port: 808100\n");
  await assert.rejects(addressOf(config, {}), ({ code, message }: { code: string; message: string }) => {
    assert.equal(code, "CONFIG_INVALID");
    assert.match(message, /yaml:\n {2}http\.port: is 808100; at most 65535$/);
    return true;
  });
});

test("healthz answers 503 with the reasons, and a name that is not ours is refused", async (t) => {
  let status = madeStatus();
  const server = await serve(t, () => status);
  const url = `http://127.0.0.1:${server.port}`;
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  status = madeStatus({ faults: ["the disk is gone"] });
  const failing = await fetch(`${url}/healthz`);
  assert.equal(failing.status, 503);
  assert.deepEqual(await failing.json(), { status: "failing", reasons: ["the disk is gone"], warnings: [] });
  const code = await new Promise<number | undefined>((resolve, reject) => {
    const asked = request(`${url}/status.json`, { headers: { host: "evil.example" } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.on("error", reject).end();
  });
  assert.equal(code, 403);
  const probe = connect(server.port, "127.0.0.1").end("GET /healthz HTTP/1.0\r\n\r\n");
  assert.match((await probe.toArray()).join(""), /^HTTP\/1\.1 503 /);
  assert.equal((await fetch(`${url}/status.json`, { method: "POST" })).status, 405);
  assert.equal((await fetch(`${url}/other`)).status, 404);
});

test("the page shows what the agent says, keeps up, says when it does not answer, and nothing becomes markup", async (t) => {
  const source = { ...madeStatus().sources[0]!, name: HOSTILE };
  let status = madeStatus({ sources: [source] });
  const server = await serve(t, () => status);
  const browser = await launchBrowser();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // Of a server that goes away, with the answer that it was giving.
    if (message.type() === "error" && !/net::ERR_/.test(message.text())) complaints.push(message.text());
  });
  const until = async (expected: string): Promise<void> => {
    const endMs = Date.now() + 90_000;
    for (;;) {
      const text = await page.evaluate<string>("document.body.innerText");
      if (text.includes(expected)) return;
      assert.ok(Date.now() < endMs, `${expected} is not in ${text}`);
      await pause(50);
    }
  };
  await page.goto(`http://127.0.0.1:${server.port}/`);
  await until("All is well");
  await until(HOSTILE);
  assert.equal(await page.title(), "pi-1 – Headwater agent");
  status = madeStatus({
    sources: [{ ...source, state: "stalled", records: 99_999 }],
    errors: [
      {
        level: "error",
        code: "DISK_FULL",
        message: HOSTILE,
        hint: "free it",
        agoMs: 0,
        firstAgoMs: 0,
        times: 7,
      },
    ],
  });
  await until("is held: the buffer takes nothing");
  await until("99,999");
  await until(`DISK_FULL: ${HOSTILE}`);
  await until("free it");
  assert.equal(await page.evaluate(`"injected" in window`), false);
  assert.equal(await page.locator("main img").count(), 0);
  await server.close();
  await until("does not answer");
  assert.deepEqual(complaints, []);
});
