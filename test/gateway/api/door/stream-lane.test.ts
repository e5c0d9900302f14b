/** node:http2's client against the short way of HTTP/2 calls, beside the plain way, which takes what it leaves. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { FrontDoor } from "../../../../gateway/api/door/front-door.ts";
import { StillClock } from "../api-fixture.ts";
import { BUDGET_BYTES, Echo, MAX_BODY_BYTES, UNREAD_BYTES } from "../lane-echo.ts";

interface Opened {
  readonly service: Echo;
  readonly clock: StillClock;
  readonly door: FrontDoor;
  /** Of the calls that went the plain way. */
  readonly plain: string[];
  client(settings?: http2.Settings): http2.ClientHttp2Session;
}

async function open(t: TestContext): Promise<Opened> {
  const service = new Echo();
  const clock = new StillClock();
  const plain: string[] = [];
  const door = new FrontDoor(
    "127.0.0.1",
    0,
    (request, reply) => {
      plain.push(`${request.method} ${request.url} ${request.headers["x-amz-target"]}`);
      const chunks: Buffer[] = [];
      request.on("error", () => {});
      reply.on("error", () => {});
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => reply.end(`plain=${Buffer.concat(chunks).length}`));
    },
    (_, socket) => void socket.destroy(),
    { service, clock },
  );
  await door.start();
  const clients: http2.ClientHttp2Session[] = [];
  t.after(async () => {
    for (const client of clients) client.destroy();
    await door.close();
  });
  const client = (settings: http2.Settings = {}): http2.ClientHttp2Session => {
    const made = http2.connect(`http://127.0.0.1:${door.address.port}`, { settings });
    made.on("error", () => {});
    clients.push(made);
    return made;
  };
  return { service, clock, door, plain, client };
}

function begin(
  client: http2.ClientHttp2Session,
  target: string,
  more: http2.OutgoingHttpHeaders = {},
): http2.ClientHttp2Stream {
  const stream = client.request({ ":method": "POST", ":path": "/", "x-amz-target": target, ...more });
  stream.on("error", () => {});
  return stream;
}

interface Heard {
  /** 0 when there was no answer. */
  readonly status: number;
  readonly headers: http2.IncomingHttpHeaders;
  readonly body: string;
}

function answer(stream: http2.ClientHttp2Stream): Promise<Heard> {
  return new Promise((resolve) => {
    let headers: http2.IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    stream.on("response", (heard) => {
      headers = heard;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("close", () => {
      const body = Buffer.concat(chunks).toString("latin1");
      resolve({ status: Number(headers[":status"] ?? 0), headers, body });
    });
  });
}

async function call(
  client: http2.ClientHttp2Session,
  target: string,
  body: string,
  more?: http2.OutgoingHttpHeaders,
): Promise<Heard> {
  const stream = begin(client, target, more);
  stream.end(body, "latin1");
  return await answer(stream);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

test("a call is answered, with a length or without, and its head is as it was signed", async (t) => {
  const { client, service, plain } = await open(t);
  const own = client();
  const { status, headers, body } = await call(own, "one", "first", {
    "content-length": 5,
    "x-two": "a   b",
  });
  assert.deepEqual([status, body], [200, "one=first"]);
  assert.deepEqual(
    [headers["x-amzn-requestid"], headers["content-type"], headers["content-length"]],
    ["id", "text/plain", "9"],
  );
  assert.ok(headers.date, "RFC 9110 §6.6.1");
  assert.equal((await call(own, "bytes-two", "")).body, "bytes-two=");
  assert.equal(service.heads[0]!.headers.get("x-two"), "a b");
  assert.match(service.heads[0]!.headers.get("host")!, /^127\.0\.0\.1:\d+$/);
  assert.deepEqual(plain, []);
  assert.ok(service.isIdle);
});

test("what is no call of the service, or unusual, goes the plain way", async (t) => {
  const { client, plain } = await open(t);
  const own = client();
  assert.equal((await call(own, "other", "abc")).body, "plain=3");
  assert.equal((await call(own, "path", "abc", { ":path": "/?x" })).body, "plain=3");
  assert.equal((await call(own, "method", "abc", { ":method": "PUT" })).body, "plain=3");
  assert.equal((await call(own, "expect", "abc", { expect: "100-continue" })).body, "plain=3");
  const declared = { "content-length": MAX_BODY_BYTES + 1 };
  const large = await call(own, "large", "x".repeat(MAX_BODY_BYTES + 1), declared);
  assert.equal(large.body, `plain=${MAX_BODY_BYTES + 1}`);
  assert.deepEqual(plain, ["POST / other", "POST /?x path", "PUT / method", "POST / expect", "POST / large"]);
});

test("calls of any sizes, in any pieces and at once, do not mix", async (t) => {
  const { client, service } = await open(t);
  const own = client();
  const one = fc.tuple(
    fc.constantFrom("one", "bytes", "other"),
    fc.array(fc.nat(40_000), { maxLength: 4 }),
    fc.boolean(),
    fc.boolean(),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(one, { minLength: 1, maxLength: 6 }), async (calls) => {
      await Promise.all(
        calls.map(async ([target, pieces, kept, declared], i) => {
          const letter = String.fromCharCode(97 + i);
          const bytes = pieces.reduce((sum, piece) => sum + piece, 0);
          const stream = begin(own, target, {
            "content-type": kept ? "kept" : "text/plain",
            ...(declared ? { "content-length": bytes } : {}),
          });
          const heard = answer(stream);
          for (const piece of pieces) {
            stream.write(letter.repeat(piece));
            await new Promise((resolve) => setImmediate(resolve));
          }
          stream.end();
          const { body } = await heard;
          assert.equal(body, target === "other" ? `plain=${bytes}` : `${target}=${letter.repeat(bytes)}`);
        }),
      );
    }),
    { numRuns: 60 },
  );
  assert.ok(service.isIdle);
});

test("bodies that are too large, or for which there is no memory, are refused and the connection stays", async (t) => {
  const { client, service } = await open(t);
  const own = client();
  assert.equal((await call(own, "one", "x".repeat(BUDGET_BYTES + 1))).body, "API_BUSY");
  service.budget.give(10 * MAX_BODY_BYTES);
  assert.equal((await call(own, "one", "x".repeat(MAX_BODY_BYTES + 1))).body, "BODY_TOO_LARGE");
  // Of one without end only a part is read.
  const endless = begin(own, "one");
  const heard = answer(endless);
  const piece = Buffer.alloc(65_536);
  const more = (): void => {
    while (!endless.destroyed && endless.write(piece));
  };
  endless.on("drain", more);
  more();
  await heard;
  assert.deepEqual(service.refused, ["API_BUSY", "BODY_TOO_LARGE", "BODY_TOO_LARGE"]);
  service.budget.take(10 * MAX_BODY_BYTES);
  assert.equal((await call(own, "one", "again")).body, "one=again");
  assert.ok(service.isIdle);
});

test("who resets in the middle of a body, or vanishes, gives the memory back", async (t) => {
  const { client, service } = await open(t);
  const own = client();
  for (const leave of ["reset", "vanish"]) {
    // Node's client ends a body that it takes back; only its length tells then that some is missing.
    const stream = begin(own, "one", { "content-length": 100_000 });
    stream.write("x".repeat(50_000));
    await until(() => !service.isIdle);
    if (leave === "reset") stream.close(http2.constants.NGHTTP2_CANCEL);
    else own.destroy();
    await until(() => service.isIdle);
  }
  await until(() => service.refused.length === 2);
  assert.deepEqual(service.refused, ["BODY_CUT_OFF", "BODY_CUT_OFF"]);
});

test("bodies that are cut off while others come in do not get into those", async (t) => {
  const { client, service } = await open(t);
  const own = client();
  for (let round = 0; round < 20; round++) {
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        const letter = String.fromCharCode(97 + i);
        const stream = begin(own, "one", { "content-length": 90_000 });
        const heard = answer(stream).catch(() => undefined);
        stream.write(letter.repeat(30_000 + i));
        await new Promise((resolve) => setImmediate(resolve));
        if ((round + i) % 3 === 0) return stream.close(http2.constants.NGHTTP2_CANCEL);
        stream.end(letter.repeat(60_000 - i));
        assert.equal((await heard)?.body, `one=${letter.repeat(90_000)}`);
      }),
    );
  }
  await until(() => service.isIdle);
});

test("who leaves before the answer harms nobody", async (t) => {
  const { client, service } = await open(t);
  const own = client();
  service.held = [];
  const stream = begin(own, "one");
  stream.end("a");
  await until(() => service.held!.length === 1);
  const closed = new Promise((resolve) => stream.once("close", resolve));
  assert.ok(!service.asker!.isGone);
  stream.close(http2.constants.NGHTTP2_CANCEL);
  await closed;
  await until(() => service.asker!.isGone);
  service.held[0]!();
  service.held = undefined;
  assert.equal((await call(own, "one", "b")).body, "one=b");
  assert.ok(service.isIdle);
});

test("large answers that are not read are held up to a key's share, and it is free again when they are gone", async (t) => {
  const { client, service } = await open(t);
  service.answerBytes = UNREAD_BYTES / 8 - 100;
  // One each: node:http2 itself takes no more calls of a connection that holds 10 MB.
  const clients = Array.from({ length: 8 }, () => client({ initialWindowSize: 0 }));
  const statuses: number[] = [];
  for (const [i, own] of clients.entries()) {
    if (i === 7) service.keyId = "AKIAOTHER";
    const stream = begin(own, "one");
    stream.end("a");
    const head = await new Promise<http2.IncomingHttpHeaders>((resolve) => stream.once("response", resolve));
    statuses.push(Number(head[":status"]));
  }
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 200, 503, 200]);
  assert.ok(service.unread.heldBytes > (3 / 4) * UNREAD_BYTES);
  for (const own of clients) own.destroy();
  await until(() => service.unread.heldBytes === 0);
});

test("who is too slow with a body is let go, and a call that is not done in time", async (t) => {
  const { client, service, clock, door } = await open(t);
  const own = client();
  const slow = begin(own, "one");
  slow.write("half");
  const waiting = begin(own, "one");
  service.held = [];
  waiting.end("whole");
  await until(() => service.held!.length === 1 && service.heads.length === 2);
  clock.aheadMs += 50_000;
  door.sweep();
  assert.equal(slow.destroyed || waiting.destroyed, false);
  clock.aheadMs += 20_000;
  const gone = Promise.all([answer(slow), answer(waiting)]);
  door.sweep();
  assert.deepEqual(
    (await gone).map(({ status }) => status),
    [0, 0],
  );
  await until(() => service.refused.length === 1);
  assert.deepEqual(service.refused, ["BODY_CUT_OFF"]);
  service.held[0]!();
  assert.ok(service.isIdle);
});

test("closing answers what has begun", async (t) => {
  const { client, service, door } = await open(t);
  service.held = [];
  const heard = call(client(), "one", "a");
  await until(() => service.held!.length === 1);
  const closed = door.close();
  service.held[0]!();
  assert.equal((await heard).body, "one=a");
  await closed;
});

test("who waits to be told to go on is told so, in whatever case it asks, as Java's client does", async (t) => {
  const own = (await open(t)).client();
  for (const expect of ["100-continue", "100-Continue"]) {
    const stream = begin(own, "expect", { expect, "content-length": 3 });
    let toldToGoOn = false;
    stream.once("continue", () => {
      toldToGoOn = true;
      stream.end("abc");
    });
    let body = "";
    stream.on("data", (chunk) => {
      body += chunk;
    });
    const status = new Promise((resolve) => {
      stream.once("response", (headers) => resolve(headers[":status"]));
    });
    await new Promise((resolve) => stream.once("close", resolve));
    assert.deepEqual([toldToGoOn, await status, body], [true, 200, "plain=3"], expect);
  }
});

test("another expectation is not met (RFC 9110 §10.1.1)", async (t) => {
  const { client, plain } = await open(t);
  assert.equal((await call(client(), "expect", "abc", { expect: "a cake" })).status, 417);
  assert.deepEqual(plain, []);
});
