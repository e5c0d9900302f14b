/** The console's JSON and page as a browser, and as somebody who is none, meets them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, symlink, writeFile } from "node:fs/promises";
import { request } from "node:http";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { StatementStatus } from "../../../gateway/analytics/analytics.ts";
import { bufferBytes, heldAtMost } from "../../support/held-memory.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { type Fixture, KEY, openFixture, PUT_ONLY, StillClock } from "./api-fixture.ts";

interface Answer {
  status: number;
  headers: Record<string, string>;
  text: string;
  json: { error?: { code: string; message: string } } & Record<string, unknown>;
}

/** By node:http, which lets a test send any Host, path and cookie. */
function ask(
  fixture: Fixture,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = "GET", headers = {}, body } = options;
    const call = request(
      { host: "127.0.0.1", port: fixture.port, path, method, headers, agent: false },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          const isJson = (answer.headers["content-type"] ?? "").startsWith("application/json");
          resolve({
            status: answer.statusCode!,
            headers: Object.fromEntries(Object.entries(answer.headers).map(([k, v]) => [k, String(v)])),
            text,
            json: isJson && text !== "" ? JSON.parse(text) : {},
          });
        });
      },
    );
    call.on("error", reject);
    call.end(body);
  });
}

const JSON_TYPE = { "content-type": "application/json" };

function signIn(
  fixture: Fixture,
  id: string,
  secret: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  return ask(fixture, "/api/session", {
    method: "POST",
    headers: { ...JSON_TYPE, ...headers },
    body: JSON.stringify({ accessKeyId: id, secretAccessKey: secret }),
  });
}

async function open(t: TestContext, options: Parameters<typeof openFixture>[0] = {}): Promise<Fixture> {
  const fixture = await openFixture(options);
  t.after(() => fixture.close());
  return fixture;
}

async function cookieOf(fixture: Fixture): Promise<string> {
  const answer = await signIn(fixture, KEY.id, KEY.secret);
  assert.equal(answer.status, 204);
  return answer.headers["set-cookie"]!.split(";")[0]!;
}

test("a key opens a session, which a cookie holds that no script and no other site can use", async (t) => {
  const fixture = await open(t);
  assert.equal((await ask(fixture, "/api/session")).status, 401);
  assert.equal((await ask(fixture, "/api/state")).status, 401);
  const answer = await signIn(fixture, KEY.id, KEY.secret);
  assert.equal(answer.status, 204);
  assert.match(
    answer.headers["set-cookie"]!,
    /^headwater_session=[A-Za-z0-9_-]{43}; HttpOnly; SameSite=Strict; Path=\/; Max-Age=43200$/,
  );
  const cookie = answer.headers["set-cookie"]!.split(";")[0]!;
  const session = await ask(fixture, "/api/session", { headers: { cookie: `a=b; ${cookie}` } });
  assert.deepEqual([session.status, session.json], [200, { accessKeyId: KEY.id }]);
  assert.equal(session.headers["cache-control"], "no-store");
  const out = await ask(fixture, "/api/session", { method: "DELETE", headers: { cookie } });
  assert.equal(out.status, 204);
  assert.match(out.headers["set-cookie"]!, /Max-Age=0$/);
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 401);
});

test("a session ends after twelve hours", async (t) => {
  const clock = new StillClock();
  const fixture = await open(t, { clock });
  const cookie = await cookieOf(fixture);
  clock.aheadMs = 12 * 3_600_000 - 10_000;
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 200);
  clock.aheadMs += 10_001;
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 401);
});

test("a crowd behind one address, such as a proxy's, does not wait for one who errs", async (t) => {
  const fixture = await open(t);
  for (let i = 0; i < 10; i++) {
    assert.equal((await signIn(fixture, PUT_ONLY.id, `wrong ${i}`)).status, 401);
    assert.equal((await signIn(fixture, `AKIANOBODY${i}`, "wrong")).status, 401);
  }
  assert.equal((await signIn(fixture, PUT_ONLY.id, "wrong once more")).status, 429);
  // A scraper whose password is outdated tries the same for ever.
  for (let i = 0; i < 20; i++) assert.equal((await signIn(fixture, KEY.id, "outdated")).status, 401);
  assert.equal((await signIn(fixture, KEY.id, KEY.secret)).status, 204);
});

test("wrong pairs are refused alike, and too many of them make the address wait", async (t) => {
  const clock = new StillClock();
  const fixture = await open(t, { clock });
  const wrong = await signIn(fixture, KEY.id, "not the secret at all");
  const unknown = await signIn(fixture, "AKIANOBODY", KEY.secret);
  assert.equal(wrong.status, 401);
  assert.deepEqual(wrong.json, unknown.json);
  assert.equal((await signIn(fixture, PUT_ONLY.id, PUT_ONLY.secret)).status, 403);
  for (let i = 0; i < 9; i++) assert.equal((await signIn(fixture, KEY.id, `wrong ${i}`)).status, 401);
  const stopped = await signIn(fixture, KEY.id, KEY.secret);
  assert.equal(stopped.status, 429);
  assert.ok(Number(stopped.headers["retry-after"]) > 0);
  clock.aheadMs = 60_001;
  assert.equal((await signIn(fixture, KEY.id, KEY.secret)).status, 204);
});

test("a clock that is set back keeps nobody waiting, and nobody signed in for longer", async (t) => {
  class SetClock extends StillClock {
    setMs = 0;
    override nowUs(): number {
      return super.nowUs() + this.setMs * 1000;
    }
  }
  const clock = new SetClock();
  const fixture = await open(t, { clock });
  const cookie = await cookieOf(fixture);
  const link = `/open?token=${fixture.api.signInToken()}`;
  for (let i = 0; i < 10; i++) assert.equal((await signIn(fixture, KEY.id, `wrong ${i}`)).status, 401);
  assert.equal((await signIn(fixture, KEY.id, KEY.secret)).status, 429);
  clock.setMs = -24 * 3_600_000;
  clock.aheadMs = 60_001;
  assert.equal((await signIn(fixture, KEY.id, KEY.secret)).status, 204);
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 200);
  clock.aheadMs = 12 * 3_600_000;
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 401);
  assert.equal((await ask(fixture, link)).headers.location, "/#link-expired");
});

test("who begins to sign in and never ends keeps nobody out", async (t) => {
  const fixture = await open(t);
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  // Together more than all who sign in may send at once; the small ones fill what the large ones leave.
  for (const [count, bytes] of [
    [140, 65_000],
    [50, 100],
    [110, 1],
  ] as const) {
    const call = `POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${bytes + 1}\r\n\r\n${"x".repeat(bytes)}`;
    for (let i = 0; i < count; i++) {
      const socket = connect(fixture.port, "127.0.0.1").on("error", () => {});
      sockets.push(socket);
      await new Promise((resolve) => socket.write(call, resolve));
    }
  }
  for (let turn = 0; turn < 10; turn++) assert.equal((await signIn(fixture, KEY.id, KEY.secret)).status, 204);
});

test("sign-in takes only JSON of the right form and size", async (t) => {
  const fixture = await open(t);
  const post = (body: string, headers: Record<string, string> = JSON_TYPE) =>
    ask(fixture, "/api/session", { method: "POST", headers, body });
  assert.equal((await post("{}", { "content-type": "text/plain" })).status, 415);
  for (const body of ["", "{", "null", "5", "[]", "{}", '{"accessKeyId":5,"secretAccessKey":{}}'])
    assert.equal((await post(body)).status, 400, body);
  assert.equal((await post(`{"accessKeyId":"${"a".repeat(70_000)}"}`)).status, 413);
});

test("a one-time link signs in once, within ten minutes", async (t) => {
  const clock = new StillClock();
  const fixture = await open(t, { clock });
  const token = fixture.api.signInToken();
  const link = `/open?token=${token}`;
  assert.equal((await ask(fixture, link, { method: "HEAD" })).status, 405, "a preview does not use it up");
  const opened = await ask(fixture, link);
  assert.deepEqual([opened.status, opened.headers.location], [303, "/"]);
  const cookie = opened.headers["set-cookie"]!.split(";")[0]!;
  assert.equal((await ask(fixture, "/api/session", { headers: { cookie } })).status, 200);
  const again = await ask(fixture, link);
  assert.deepEqual([again.status, again.headers.location], [303, "/#link-expired"]);
  assert.equal(again.headers["set-cookie"], undefined);
  const late = fixture.api.signInToken();
  clock.aheadMs = 10 * 60_000;
  assert.equal((await ask(fixture, `/open?token=${late}`)).headers.location, "/#link-expired");
  assert.equal((await ask(fixture, "/open?token=")).headers.location, "/#link-expired");
});

test("a link needs a key that may use the console", async (t) => {
  const fixture = await open(t, { accessKeys: [PUT_ONLY] });
  assert.throws(() => fixture.api.signInToken(), { code: "NO_CONSOLE_KEY" });
});

test("a foreign Host or Origin is refused before anything else", async (t) => {
  const fixture = await open(t, { api: { hostNames: ["Farm.local"] } });
  const { port } = fixture;
  const status = async (headers: Record<string, string>, path = "/healthz"): Promise<number> =>
    (await ask(fixture, path, { headers })).status;
  assert.equal(await status({ host: `127.0.0.1:${port}` }), 200);
  assert.equal(await status({ host: "localhost" }), 200);
  assert.equal(await status({ host: "farm.local:9000" }), 200);
  assert.equal(await status({ host: "evil.example" }), 403);
  assert.equal(await status({ host: "evil.example" }, "/"), 403);
  assert.equal(await status({ host: "127.0.0.1.evil.example" }), 403);
  assert.equal(await status({ host: "a b" }), 403);
  const host = `127.0.0.1:${port}`;
  assert.equal(await status({ host, origin: `http://${host}` }), 200);
  assert.equal(await status({ host, origin: "http://evil.example" }), 403);
  assert.equal(await status({ host, origin: `http://127.0.0.1:${port + 1}` }), 403);
  assert.equal(await status({ host, origin: "null" }), 403);
  const signed = await signIn(fixture, KEY.id, KEY.secret, { origin: "http://evil.example" });
  assert.equal(signed.status, 403);
});

test("the page comes with a strict policy, and nothing beside it is given out", async (t) => {
  const fixture = await open(t);
  const page = await ask(fixture, "/");
  assert.equal(page.status, 200);
  assert.match(page.text, /<title>console<\/title>/);
  assert.equal(page.headers["content-type"], "text/html; charset=utf-8");
  assert.equal(page.headers["x-content-type-options"], "nosniff");
  const policy = page.headers["content-security-policy"]!;
  assert.match(policy, /default-src 'self'; connect-src 'self' ws:\/\/127\.0\.0\.1:\d+ /);
  assert.ok(!policy.includes("unsafe"));
  const same = await ask(fixture, "/", { headers: { "if-none-match": page.headers.etag! } });
  assert.deepEqual([same.status, same.text], [304, ""]);
  assert.equal((await ask(fixture, "/console.js", { method: "HEAD" })).text, "");
  assert.equal((await ask(fixture, "/console.js", { method: "POST" })).status, 405);
  for (const path of [
    "/.hidden.js",
    "/../package.json",
    "/%2e%2e/package.json",
    "/..%2f..%2fetc/passwd",
    "//etc/passwd.txt",
    "/console.js/",
    "/streams/format.json%00.js",
    "/none.js",
    "/streams",
    "/\\..\\x.js",
  ])
    assert.equal((await ask(fixture, path)).status, 404, path);
});

test("who asks for a file again and again, and reads no answer, holds no memory by it", async (t) => {
  const consoleDir = await mkdtemp(join(tmpdir(), "headwater-console-"));
  t.after(() => removeFolder(consoleDir));
  const bytes = 2_000_000;
  await writeFile(join(consoleDir, "console.js"), Buffer.alloc(bytes, "x"));
  const fixture = await open(t, { api: { consoleDir } });
  const before = bufferBytes();
  const socket = connect(fixture.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.pause();
  socket.write("GET /console.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500));
  // Somebody else's question is answered behind all of these.
  for (let turn = 0; turn < 3; turn++) assert.equal((await ask(fixture, "/console.js")).text.length, bytes);
  await heldAtMost(20 * bytes, before);
  // A changed file is given out as it is now.
  await writeFile(join(consoleDir, "console.js"), "changed");
  assert.equal((await ask(fixture, "/console.js")).text, "changed");
});

test("a link out of the console's folder is not followed", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-page-"));
  t.after(() => removeFolder(folder));
  await writeFile(join(folder, "inside.txt"), "inside");
  await symlink("/etc/hostname", join(folder, "outside.txt"));
  await symlink(join(folder, "inside.txt"), join(folder, "alias.txt"));
  const fixture = await open(t, { api: { consoleDir: folder } });
  assert.equal((await ask(fixture, "/inside.txt")).text, "inside");
  assert.equal((await ask(fixture, "/alias.txt")).status, 200);
  assert.equal((await ask(fixture, "/outside.txt")).status, 404);
});

test("state shows streams, their rates and how far their consumers are behind", async (t) => {
  const fixture = await open(t);
  const headers = { cookie: await cookieOf(fixture) };
  await fixture.streams.createStream({ name: "s", shards: 2, retentionHours: 48 });
  const consumer = await fixture.streams.openConsumer("s", "delivery/files");
  const read = async () => {
    const answer = await ask(fixture, "/api/state", { headers });
    assert.equal(answer.status, 200);
    return answer.json as unknown as {
      nowMs: number;
      streams: {
        name: string;
        retentionHours: number;
        shards: { shardId: string; latest: number; recordsPerSecond: number }[];
        consumers: { name: string; behind: number }[];
      }[];
    };
  };
  await read();
  await fixture.streams.append(
    "s",
    Array.from({ length: 40 }, (_, i) => ({ partitionKey: `k${i}`, data: Buffer.from("{}") })),
  );
  const state = await read();
  assert.ok(Math.abs(state.nowMs - Date.now()) < 5_000);
  const [stream] = state.streams;
  assert.deepEqual([stream?.name, stream?.retentionHours, stream?.shards.length], ["s", 48, 2]);
  assert.equal(
    stream?.shards.reduce((sum, shard) => sum + shard.latest, 0),
    40,
  );
  assert.ok(stream!.shards.every((shard) => shard.recordsPerSecond > 0));
  assert.deepEqual(stream?.consumers, [{ name: "delivery/files", behind: 40 }]);
  await consumer.close();
});

test("windows are the newest results of a statement, newest first", async (t) => {
  const fixture = await open(t);
  const headers = { cookie: await cookieOf(fixture) };
  await fixture.streams.createStream({ name: "out", shards: 1, retentionHours: 24 });
  fixture.statements.push({ name: "means", output: "out" } as StatementStatus);
  for (let n = 0; n < 5; n++) {
    await fixture.streams.append("out", [{ partitionKey: "k", data: Buffer.from(JSON.stringify({ n })) }]);
  }
  await fixture.streams.append("out", [{ partitionKey: "k", data: Buffer.from("no json") }]);
  const answer = await ask(fixture, "/api/windows?statement=means&limit=4", { headers });
  assert.deepEqual(answer.json, { rows: [{ n: 4 }, { n: 3 }, { n: 2 }] });
  assert.equal((await ask(fixture, "/api/windows?statement=none", { headers })).status, 404);
  assert.equal((await ask(fixture, "/api/windows?statement=means&limit=-1", { headers })).status, 400);
});

test("footage is listed and played by name, and no name leads elsewhere", async (t) => {
  const fixture = await open(t);
  const headers = { cookie: await cookieOf(fixture) };
  const { id } = fixture.video.fragment;
  const list = await ask(fixture, "/api/footage?camera=gate&fromUs=0&toUs=5000000&limit=5", { headers });
  assert.deepEqual(list.json, {
    fragments: [
      {
        id,
        epoch: "0000000000000001",
        sequence: "1",
        producerUs: 1_000_000,
        durationUs: 2_000_000,
        bytes: 4,
        state: "whole",
      },
    ],
  });
  const file = await ask(fixture, `/api/footage/gate/${id}.mp4`, { headers });
  assert.deepEqual([file.status, file.headers["content-type"], file.text], [200, "video/mp4", "ftyp"]);
  assert.equal((await ask(fixture, `/api/footage/gate/${id}.mp4`)).status, 401);
  for (const path of [
    "/api/footage/gate/none.mp4",
    "/api/footage/..%2Fgate/x.mp4",
    "/api/footage/%2e%2e/x.mp4",
    "/api/footage/%ff/x.mp4",
    "/api/footage?camera=..%2F..",
  ])
    assert.equal((await ask(fixture, path, { headers })).status, 404, path);
});

test("footage that nobody takes is held up to its user's share, and beyond it refused", async (t) => {
  const fixture = await open(t);
  const cookie = await cookieOf(fixture);
  let reads = 0;
  let most = 0;
  fixture.video.readFragment = async () => {
    most = Math.max(most, ++reads);
    await new Promise((resolve) => setImmediate(resolve));
    reads--;
    return Buffer.alloc(8 * 1_048_576);
  };
  const client = http2.connect(fixture.origin, { settings: { initialWindowSize: 0 } });
  t.after(() => client.destroy());
  const path = `/api/footage/gate/${fixture.video.fragment.id}.mp4`;
  const statuses = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const stream = client.request({ ":path": path, cookie }).on("error", () => undefined);
      const [head] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
      return Number(head[":status"]);
    }),
  );
  assert.equal(statuses.filter((status) => status === 200).length, 12);
  assert.equal(statuses.filter((status) => status === 503).length, 28);
  assert.equal(most, 4);
  client.destroy();
  while ((await ask(fixture, path, { headers: { cookie } })).status !== 200);
});

test("/healthz tells what fails, and /metrics is Prometheus text", async (t) => {
  const fixture = await open(t);
  assert.equal((await ask(fixture, "/healthz")).json.status, "ok");
  const metrics = await ask(fixture, "/metrics");
  assert.match(metrics.headers["content-type"]!, /^text\/plain; version=0\.0\.4/);
  assert.match(metrics.text, /^headwater_api_connections \d+$/m);
  fixture.statements.push({ name: "means", state: "failed", lastError: "no memory" } as StatementStatus);
  fixture.statements.push({
    name: "tried again",
    state: "running",
    lastError: "no room",
    failing: true,
  } as StatementStatus);
  fixture.statements.push({
    name: "on standby",
    state: "running",
    lastError: "elsewhere",
    failing: false,
  } as StatementStatus);
  const failing = await ask(fixture, "/healthz");
  assert.equal(failing.status, 503);
  assert.deepEqual(failing.json.problems, ["statement means: no memory", "statement tried again: no room"]);
  Object.assign(fixture.streams, { unreachable: "the NATS cluster does not answer" });
  const { problems } = (await ask(fixture, "/healthz")).json;
  assert.deepEqual(problems, ["the NATS cluster does not answer", ...(failing.json.problems as string[])]);
});

test("who comes by a proxy on the gateway's machine is asked for a key before /metrics", async (t) => {
  const fixture = await open(t, { api: { hostNames: ["gateway.example"] } });
  const proxied = { headers: { host: "gateway.example" } };
  assert.equal((await ask(fixture, "/metrics", proxied)).status, 401);
  assert.equal((await ask(fixture, "/healthz", proxied)).status, 200);
  for (const host of ["localhost", "127.0.0.1", "127.0.0.1:8080"]) {
    assert.equal((await ask(fixture, "/metrics", { headers: { host } })).status, 200);
  }
});

test("where others can reach the port, /metrics and /healthz ask who is there", async (t) => {
  const fixture = await open(t, { api: { host: "0.0.0.0" } });
  const basic = (id: string, secret: string) => ({
    authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString("base64")}`,
  });
  const bare = await ask(fixture, "/metrics");
  assert.equal(bare.status, 401);
  assert.match(bare.headers["www-authenticate"]!, /^Basic /);
  assert.equal((await ask(fixture, "/metrics", { headers: basic(KEY.id, KEY.secret) })).status, 200);
  assert.equal((await ask(fixture, "/healthz", { headers: basic(KEY.id, "wrong") })).status, 401);
  assert.equal(
    (await ask(fixture, "/healthz", { headers: { cookie: await cookieOf(fixture) } })).status,
    200,
  );
});

test("only reading is offered below /api", async (t) => {
  const fixture = await open(t);
  const headers = { cookie: await cookieOf(fixture) };
  assert.equal((await ask(fixture, "/api/state", { method: "POST", headers })).status, 405);
  assert.equal((await ask(fixture, "/api/none", { headers })).status, 404);
  assert.equal((await ask(fixture, "/api/sensors", { headers })).status, 400);
  assert.equal((await ask(fixture, "/api/sensors?stream=none", { headers })).status, 404);
});
