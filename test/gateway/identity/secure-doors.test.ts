/** The TLS ports of the three doors: what goes on behind them is the same as behind the plain ones. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { copyFile, mkdtemp, readFile, rename } from "node:fs/promises";
import http2 from "node:http2";
import { get, Agent as HttpsAgent, request } from "node:https";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test from "node:test";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { KinesisClient, ListStreamsCommand, PutRecordsCommand } from "@aws-sdk/client-kinesis";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { openLevelFootageBuffer } from "../../../agent/buffer/footage/level-footage-buffer.ts";
import { tlsOptions } from "../../../agent/identity/credentials.ts";
import { RtspUplink } from "../../../agent/uplink/rtsp-uplink.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { madeUnit, SDP } from "../../agent/buffer/footage/made-unit.ts";
import { eventually } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { sign } from "../api/sign.ts";
import { JoiningRig } from "./joining-rig.ts";

const KEY = { id: "AKIATEST", secret: "0123456789abcdef" };
const KEY_YAML = `accessKeys: [{id: ${KEY.id}, secret: ${KEY.secret}}]`;

function caOf(rig: JoiningRig): Promise<string> {
  return readFile(join(rig.dir, "gateway", "identity", "ca-certificate.pem"), "utf8");
}

test("AWS's SDK puts records over HTTPS", async (t) => {
  const rig = await JoiningRig.start(t, "", KEY_YAML);
  const httpsAgent = new HttpsAgent({ ca: await caOf(rig), keepAlive: true });
  const kinesis = new KinesisClient({
    endpoint: `https://localhost:${rig.port("https")}`,
    region: "us-east-1",
    credentials: { accessKeyId: KEY.id, secretAccessKey: KEY.secret },
    requestHandler: new NodeHttpHandler({ httpsAgent }),
  });
  for (let i = 0; i < 3; i++) {
    const Records = Array.from({ length: 500 }, (_, n) => ({
      PartitionKey: `key-${n}`,
      Data: Buffer.alloc(200, n),
    }));
    const put = await kinesis.send(new PutRecordsCommand({ StreamName: "sensors", Records }));
    assert.equal(put.FailedRecordCount, 0);
  }
  const streams = await kinesis.send(new ListStreamsCommand({}));
  assert.ok(streams.StreamNames?.includes("sensors"));
  kinesis.destroy();
});

test("the TLS port speaks HTTP/2 with whoever asks for it", async (t) => {
  const rig = await JoiningRig.start(t, "", KEY_YAML);
  const authority = `localhost:${rig.port("https")}`;
  const session = http2.connect(`https://${authority}`, { ca: await caOf(rig) });
  const call = async (operation: string, fields: object): Promise<unknown> => {
    const body = JSON.stringify(fields);
    const headers = await sign({
      headers: {
        host: authority,
        "x-amz-target": `Kinesis_20131202.${operation}`,
        "content-type": "application/x-amz-json-1.1",
      },
      body,
      key: KEY,
    });
    const { host: _, ...rest } = headers;
    const stream = session.request({ ":method": "POST", ":path": "/", ...rest });
    stream.end(body);
    return JSON.parse(await text(stream));
  };
  const Data = Buffer.alloc(20_000, 7).toString("base64");
  for (let i = 0; i < 5; i++)
    assert.ok(
      Object.hasOwn(
        (await call("PutRecord", { StreamName: "sensors", PartitionKey: "a", Data })) as object,
        "SequenceNumber",
      ),
    );
  assert.ok(((await call("ListStreams", {})) as { StreamNames: string[] }).StreamNames.includes("sensors"));
  assert.equal(session.alpnProtocol, "h2");
  session.close();
});

test("beyond this machine, /metrics needs a key also by the TLS port", async (t) => {
  const outside = Object.values(networkInterfaces())
    .flat()
    .find((one) => one !== undefined && one.family === "IPv4" && !one.internal)?.address;
  if (outside === undefined) return t.skip("this machine has no other address");
  const rig = await JoiningRig.start(t, ", host: 0.0.0.0", KEY_YAML);
  const ca = await caOf(rig);
  const ask = (host: string): Promise<number> =>
    new Promise((resolve, reject) => {
      get({ host, port: rig.port("https"), path: "/metrics", ca, agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode!);
      }).on("error", reject);
    });
  assert.equal(await ask("127.0.0.1"), 200);
  assert.equal(await ask(outside), 401);
});

test("who signs in over TLS gets a cookie that leaves by TLS alone", async (t) => {
  const rig = await JoiningRig.start(t, "", KEY_YAML);
  const ca = await caOf(rig);
  const body = JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret });
  const cookies = await new Promise<readonly string[] | undefined>((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": body.length };
    const where = {
      host: "127.0.0.1",
      port: rig.port("https"),
      path: "/api/session",
      ca,
      agent: false as const,
    };
    const asked = request({ ...where, method: "POST", headers }, (answer) => {
      answer.resume();
      resolve(answer.headers["set-cookie"]);
    });
    asked.on("error", reject);
    asked.end(body);
  });
  assert.match(cookies?.[0] ?? "", /; HttpOnly; .*; Secure$/);
});

test("a device publishes footage at its own paths, and reads no other's", async (t) => {
  const rig = await JoiningRig.start(t);
  const tls = tlsOptions(await rig.joined("pi-1"));
  const announce = async (path: string, options: typeof tls): Promise<string> => {
    const url = `rtsps://127.0.0.1:${rig.port("rtsps")}/${path}`;
    const client = new RtspClient({ url, tls: options });
    try {
      await client.connect();
      await client.announce(SDP);
      await client.setup("record");
      await client.record();
      return "recording";
    } catch (error) {
      return (error as Error).message;
    } finally {
      await client.close();
    }
  };
  assert.equal(await announce("pi-1/yard", tls), "recording");
  assert.match(await announce("pi-2/yard", tls), /403/);
  assert.match(await announce("yard", tls), /403/);
  assert.match(await announce("pi-1/yard", { rejectUnauthorized: false }), /401/);
});

test("under its own name a device does not find the camera of another", async (t) => {
  const rig = await JoiningRig.start(t);
  const url = `rtsps://127.0.0.1:${rig.port("rtsps")}`;
  const publisher = new RtspClient({ url: `${url}/pi-1/yard`, tls: tlsOptions(await rig.joined("pi-1")) });
  t.after(() => publisher.close());
  await publisher.connect();
  await publisher.announce(SDP);
  await publisher.setup("record");
  await publisher.record();
  const describe = async (path: string, device: string): Promise<string> => {
    const reader = new RtspClient({ url: `${url}/${path}`, tls: tlsOptions(await rig.joined(device)) });
    try {
      await reader.connect();
      return (await reader.describe()).sdp;
    } catch (error) {
      return (error as Error).message;
    } finally {
      await reader.close();
    }
  };
  assert.match(await describe("pi-2/yard", "pi-2"), /404/);
  assert.match(await describe("pi-1/yard", "pi-2"), /403/);
});

test("an agent's footage uplink reaches the archive over TLS", async (t) => {
  const rig = await JoiningRig.start(t);
  const tls = tlsOptions(await rig.joined("pi-1"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const buffer = await openLevelFootageBuffer({ ...parts, dir: join(rig.dir, "footage"), maxBytes: 1 << 26 });
  const url = `rtsps://127.0.0.1:${rig.port("rtsps")}`;
  const uplink = new RtspUplink({ ...parts, config: { url, device: "pi-1", tls: () => tls }, buffer });
  t.after(async () => {
    await uplink.close();
    await buffer.close();
  });
  for (const number of [1, 2]) await buffer.append(madeUnit("yard", number, 30_000));
  await uplink.start();
  // Only what the gateway has on disk is taken out of the buffer.
  await eventually("both units", 60_000, async () => (buffer.usage().waitingUnits === 0 ? true : undefined));
});

test("the gateway's certificate names the machine, and OpenSSL finds nothing wrong with it", async (t) => {
  const rig = await JoiningRig.start(t, ", names: [gateway.example]");
  const identity = await rig.joined("pi-1");
  const file = join(rig.dir, "gateway", "identity", "ca-certificate.pem");
  const run = promisify(execFile);
  const args = [
    "s_client",
    "-connect",
    `127.0.0.1:${rig.port("https")}`,
    "-CAfile",
    file,
    "-verify_return_error",
  ];
  for (const name of ["localhost", "gateway.example"]) {
    const checked = run("openssl", [...args, "-verify_hostname", name, "-x509_strict"]);
    checked.child.stdin!.end();
    assert.match((await checked).stdout, /Verify return code: 0 \(ok\)/, name);
  }
  const certificate = new X509Certificate(identity.certificate);
  assert.equal(certificate.subject, "CN=pi-1");
  assert.ok(certificate.checkIssued(new X509Certificate(identity.ca)));
});

test("a given certificate is served, and a new one without a restart", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "hw-cert-"));
  t.after(() => removeFolder(dir));
  const make = async (name: string): Promise<void> => {
    const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`, "-days", "2", "-nodes"];
    const kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const files = ["-keyout", join(dir, `${name}.key`), "-out", join(dir, `${name}.pem`)];
    await promisify(execFile)("openssl", [...kind, ...subject, ...files]);
  };
  await make("one.example");
  await make("two.example");
  const use = async (name: string): Promise<void> => {
    for (const kind of ["pem", "key"]) {
      await copyFile(join(dir, `${name}.${kind}`), join(dir, `new.${kind}`));
      await rename(join(dir, `new.${kind}`), join(dir, `server.${kind}`));
    }
  };
  await use("one.example");
  const given = `, certFile: ${join(dir, "server.pem")}, keyFile: ${join(dir, "server.key")}, lookSeconds: 0.05`;
  const rig = await JoiningRig.start(t, given);
  const served = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect(
        { port: rig.port("https"), host: "127.0.0.1", rejectUnauthorized: false },
        () => {
          resolve(String(socket.getPeerCertificate().subject.CN));
          socket.destroy();
        },
      );
      socket.on("error", reject);
    });
  assert.equal(await served(), "one.example");
  assert.ok((await rig.token("pi-1")).endsWith("."), "nothing is pinned: every system can check it");
  await use("two.example");
  await eventually("the new certificate", 60_000, async () =>
    (await served()) === "two.example" ? true : undefined,
  );
});
