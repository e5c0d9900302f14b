/** Calls in forms that SDKs do not write themselves, but what stands between them and a gateway does. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import test from "node:test";
import { connect as connectTls, type SecureVersion } from "node:tls";
import { eventually } from "../../support/program.ts";
import { JoiningRig } from "../identity/joining-rig.ts";
import { KEY, openFixture } from "./api-fixture.ts";
import { sign } from "./sign.ts";

interface Form {
  readonly authority: string;
  readonly target?: string;
  /** Whether the connection ends behind the answer. */
  readonly isLast?: boolean;
  /** Which the lanes leave to Node's server. */
  readonly header?: string;
}

function listStreams(form: Form): Promise<string> {
  return callOf("ListStreams", {}, form);
}

async function callOf(
  operation: string,
  input: object,
  { authority, target = "/", isLast = false, header = "" }: Form,
): Promise<string> {
  const body = JSON.stringify(input);
  const headers = await sign({
    headers: {
      host: authority,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": `Kinesis_20131202.${operation}`,
    },
    body,
  });
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const end = isLast ? "connection: close\r\n" : "";
  return `POST ${target} HTTP/1.1\r\n${lines.join("")}${header}${end}content-length: ${body.length}\r\n\r\n${body}`;
}

/** The statuses of all that comes until the connection ends; with `isAll` the client ends its side at once. */
async function statusesOf(socket: Socket, bytes: string, isAll = false): Promise<readonly string[]> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  if (isAll) socket.end(bytes);
  else socket.write(bytes);
  await closed;
  const text = Buffer.concat(chunks).toString("latin1");
  return [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]!);
}

test("hundreds of calls pipelined at once are all answered, over TLS as well", async (t) => {
  const rig = await JoiningRig.start(t, "", `accessKeys: [{id: ${KEY.id}, secret: ${KEY.secret}}]`);
  const ca = await readFile(join(rig.dir, "gateway", "identity", "ca-certificate.pem"), "utf8");
  const port = Number(new URL(rig.gateway.addresses.http).port);
  const tlsPort = rig.port("https");
  const ways: Record<string, readonly [number, () => Socket]> = {
    plain: [port, () => connect(port, "127.0.0.1")],
    TLS: [tlsPort, () => connectTls({ port: tlsPort, host: "localhost", ca })],
  };
  for (const [way, [at, open]] of Object.entries(ways)) {
    for (const header of ["", "te: trailers\r\n"]) {
      const form = { authority: `localhost:${at}`, header };
      const bytes = (await listStreams(form)).repeat(499) + (await listStreams({ ...form, isLast: true }));
      const statuses = await statusesOf(open(), bytes);
      assert.equal(statuses.filter((status) => status === "200").length, 500, `${way}, ${header}`);
      assert.equal(statuses.length, 500, `${way}, ${header}`);
    }
  }
});

test("a call in absolute form, as clients of proxies write it, is the same call", async (t) => {
  const { port } = await openFixture().then((fixture) => {
    t.after(() => fixture.close());
    return fixture;
  });
  const authority = `127.0.0.1:${port}`;
  const statusOf = async (target: string): Promise<readonly string[]> =>
    await statusesOf(connect(port, "127.0.0.1"), await listStreams({ authority, target, isLast: true }));
  // RFC 9112 §3.2.2
  for (const target of [`http://${authority}/`, `HTTP://${authority}/`, `http://${authority}`]) {
    assert.deepEqual(await statusOf(target), ["200"], target);
  }
  const get = async (target: string): Promise<readonly string[]> => {
    const head = `GET ${target} HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`;
    return await statusesOf(connect(port, "127.0.0.1"), head);
  };
  assert.deepEqual(await get(`http://${authority}/healthz`), ["200"]);
  assert.deepEqual(await get(`http://evil.example:${port}/index.html`), ["403"], "the target's host counts");
});

test("who names no host, as a load balancer that asks for /healthz, is no browser", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const get = async (path: string, headers = ""): Promise<readonly string[]> =>
    await statusesOf(connect(fixture.port, "127.0.0.1"), `GET ${path} HTTP/1.0\r\n${headers}\r\n`);
  assert.deepEqual(await get("/healthz"), ["200"]);
  // Nothing tells whom a proxy on this machine brings.
  assert.deepEqual(await get("/metrics"), ["401"]);
  assert.deepEqual(await get("/api/state"), ["401"]);
  assert.deepEqual(await get("/healthz", "Origin: http://evil.example\r\n"), ["403"]);
  assert.deepEqual(await get("/healthz", "Host: evil.example\r\n"), ["403"]);
});

test("who has sent all that they will is answered, also where it takes a while, and then parted with", async (t) => {
  const rig = await JoiningRig.start(t, "", `accessKeys: [{id: ${KEY.id}, secret: ${KEY.secret}}]`);
  const ca = await readFile(join(rig.dir, "gateway", "identity", "ca-certificate.pem"), "utf8");
  const { http } = rig.gateway.addresses;
  const port = Number(new URL(http).port);
  const tlsPort = rig.port("https");
  const overTls = (version: SecureVersion) => () =>
    connectTls({
      ...{ port: tlsPort, host: "localhost", ca, allowHalfOpen: true },
      ...{ minVersion: version, maxVersion: version },
    });
  const ways: Record<string, readonly [number, () => Socket]> = {
    plain: [port, () => connect(port, "127.0.0.1")],
    "TLS 1.2": [tlsPort, overTls("TLSv1.2")],
    "TLS 1.3": [tlsPort, overTls("TLSv1.3")],
  };
  const input = { StreamName: "sensors", PartitionKey: "k", Data: "AAAA" };
  for (const [way, [at, open]] of Object.entries(ways)) {
    const authority = `localhost:${at}`;
    const lane = await callOf("PutRecord", input, { authority });
    // Which the lanes leave to Node's server.
    const other = await callOf("PutRecord", input, { authority, header: "te: trailers\r\n" });
    const names = { lane, other };
    for (const first of ["lane", "other"] as const) {
      assert.deepEqual(await statusesOf(open(), names[first], true), ["200"], `${way}: ${first}`);
      for (const second of ["lane", "other"] as const) {
        const bytes = names[first] + names[second];
        const what = `${way}: ${first}, then ${second}`;
        assert.deepEqual(await statusesOf(open(), bytes, true), ["200", "200"], what);
      }
    }
    for (const part of ["", "POST /", lane.slice(0, -2), other.slice(0, -2)]) {
      const statuses = await statusesOf(open(), part, true);
      assert.ok(statuses.length === 0 || statuses[0] === "400", `${way}: ${part.length} bytes, ${statuses}`);
    }
  }
  await eventually("all connections have ended but that which asks", 60_000, async () => {
    const metrics = await (await fetch(`${http}/metrics`)).text();
    return /^headwater_api_connections 1$/m.test(metrics) || undefined;
  });
});

test("who ends their side behind SubscribeToShard has left", { timeout: 60_000 }, async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const { port, streams } = fixture;
  await streams.createStream({ name: "readings", shards: 1, retentionHours: 24 });
  const { createdMs } = await streams.registerReader("readings", "reader", {});
  const form = { authority: `127.0.0.1:${port}` };
  const subscribe = await callOf(
    "SubscribeToShard",
    {
      ConsumerARN: `arn:aws:kinesis:us-east-1:000000000000:stream/readings/consumer/reader:${Math.floor(createdMs / 1000)}`,
      ShardId: "shardId-000000000000",
      StartingPosition: { Type: "LATEST" },
    },
    form,
  );
  const first = await callOf("ListStreams", {}, form);
  // It would go on for five minutes otherwise.
  for (const bytes of [subscribe, first + subscribe])
    await statusesOf(connect(port, "127.0.0.1"), bytes, true);
});
