/** Where few files may be open, connections leave the storage what it needs, and what is too little is said at the start. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { CreateStreamCommand, KinesisClient } from "@aws-sdk/client-kinesis";
import { removeFolder } from "../support/remove-folder.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";

const MAX_FILES = 320;

class LimitedGateway {
  readonly child: ChildProcess;
  printed = "";

  constructor(config: string) {
    const entry = scriptPath("../../gateway/main.ts", import.meta.url);
    const command = [process.execPath, ...nodeFlags, entry, "--config", config];
    this.child = spawn("sh", ["-c", `ulimit -n ${MAX_FILES} && exec "$@"`, "sh", ...command]);
    for (const output of [this.child.stdout, this.child.stderr])
      output?.on("data", (text) => {
        this.printed += text;
      });
  }

  async address(door: "http" | "mqtt"): Promise<URL> {
    for (;;) {
      const found = new RegExp(`"${door}":"([^"]+)".*"msg":"ready"`).exec(this.printed)?.[1];
      if (found !== undefined) return new URL(found);
      assert.equal(this.child.exitCode, null, this.printed);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function started(t: TestContext, yaml: string): Promise<() => LimitedGateway> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-descriptors-"));
  const config = join(dir, "gateway.yaml");
  const keys = "accessKeys: [{id: AKIDEXAMPLE, secret: secretsecretsecret}]\n";
  await writeFile(config, `dataDir: data\nhttp: {port: 0}\nmqtt: {port: 0}\nrtsp: {port: 0}\n${keys}${yaml}`);
  const all: LimitedGateway[] = [];
  t.after(async () => {
    for (const { child } of all) {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    }
    await removeFolder(dir);
  });
  return () => {
    const gateway = new LimitedGateway(config);
    all.push(gateway);
    return gateway;
  };
}

test("idle connections leave descriptors for new streams, and those that go are counted", async (t) => {
  const gateway = (await started(t, ""))();
  const http = await gateway.address("http");
  const mqtt = await gateway.address("mqtt");
  assert.match(gateway.printed, /"maxFiles":320.*LimitNOFILE.*the doors take fewer connections/);
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let i = 0; i < 2 * MAX_FILES; i++) {
    const socket = connect(Number((i % 2 === 0 ? http : mqtt).port), "127.0.0.1").on("error", () => {});
    sockets.push(socket);
    await once(socket, "connect");
  }

  const kinesis = new KinesisClient({
    endpoint: http.origin,
    region: "us-east-1",
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secretsecretsecret" },
    maxAttempts: 1,
  });
  for (let i = 0; i < 10; i++) await kinesis.send(new CreateStreamCommand({ StreamName: `s${i}` }));
  const metrics = await (await fetch(`${http.origin}/metrics`)).text();
  assert.match(metrics, /^headwater_api_connections_ended_total\{whose="oldest stranger"\} [1-9]/m);
  assert.match(metrics, /^headwater_ingest_refused_total\{reason="too many connections"\} [1-9]/m);
  const open = Number(/^process_open_fds (\d+)$/m.exec(metrics)?.[1]);
  assert.ok(open < MAX_FILES - 64, `${open} of ${MAX_FILES}`);
});

test("a gateway that may open too few files for its streams says so, and what to raise", {
  timeout: 60_000,
}, async (t) => {
  const streams = Array.from({ length: 80 }, (_, i) => `  - {name: s${i}}\n`).join("");
  const start = await started(t, `streams:\n${streams}`);
  // With streams that it made itself, and with those that it found.
  for (let i = 0; i < 2; i++) {
    const { child, printed } = await ended(start());
    assert.equal(child.exitCode, 1);
    assert.match(printed, /320 files may be open, and 8[01] streams need 35[24].*LimitNOFILE/);
  }
});

async function ended(gateway: LimitedGateway): Promise<LimitedGateway> {
  await once(gateway.child, "close");
  return gateway;
}
