/** Raw sockets against the short way of HTTP/1.1 calls, beside Node's HTTP server, which takes what it leaves. */
import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { FrontDoor } from "../../../../gateway/api/door/front-door.ts";
import { RequestLane } from "../../../../gateway/api/door/request-lane.ts";
import { StillClock } from "../api-fixture.ts";
import { BUDGET_BYTES, Echo } from "../lane-echo.ts";

interface Opened {
  readonly service: Echo;
  readonly clock: StillClock;
  readonly door: FrontDoor;
  /** Of the requests that Node's server got. */
  readonly plain: string[];
  line(): Line;
}

/** A client's connection and all that it was told. */
class Line {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  heard = "";
  #wake: () => void = () => {};

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }).setNoDelay(true);
    this.socket.on("data", (chunk) => {
      this.heard += chunk.toString("latin1");
      this.#wake();
    });
    this.socket.on("error", () => {});
    this.socket.on("end", () => this.socket.end());
    this.closed = new Promise((resolve) => this.socket.once("close", () => resolve()));
  }

  /** Statuses and bodies of the answers, once there are so many. */
  async answers(count: number): Promise<Array<{ status: number; body: string; connection: string }>> {
    for (;;) {
      const answers = [];
      let rest = this.heard;
      for (;;) {
        const head = /^HTTP\/1\.1 (\d+)[\s\S]*?\r\n\r\n/.exec(rest);
        const length = head && Number(/content-length: (\d+)/i.exec(head[0])?.[1] ?? 0);
        if (head === null || length === null || rest.length < head[0].length + length) break;
        const connection = /connection: (\S+)/i.exec(head[0])?.[1] ?? "";
        answers.push({
          status: Number(head[1]),
          body: rest.slice(head[0].length, head[0].length + length),
          connection,
        });
        rest = rest.slice(head[0].length + length);
      }
      if (answers.length >= count) return answers;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

async function open(t: TestContext): Promise<Opened> {
  const service = new Echo();
  const clock = new StillClock();
  const plain: string[] = [];
  const door = new FrontDoor(
    "127.0.0.1",
    0,
    (request, reply) => {
      plain.push(String(request.headers["x-amz-target"]));
      const chunks: Buffer[] = [];
      request.on("error", () => {});
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => reply.end(`plain=${Buffer.concat(chunks).toString("latin1")}`));
    },
    (_, socket) => void socket.destroy(),
    { service, clock },
  );
  await door.start();
  const lines: Line[] = [];
  t.after(async () => {
    for (const line of lines) line.socket.destroy();
    await door.close();
  });
  const line = (): Line => {
    const made = new Line(door.address.port);
    lines.push(made);
    return made;
  };
  return { service, clock, door, plain, line };
}

function call(target: string, body: string, more = ""): Buffer {
  return Buffer.from(
    `POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: ${target}\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`,
    "latin1",
  );
}

/** Until its end has been read. */
function isReading(socket: Socket): boolean {
  return !(socket as unknown as { _readableState: { ended: boolean } })._readableState.ended;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

test("calls of one connection are answered in order, whole and with a length", async (t) => {
  const { line, service, plain } = await open(t);
  const own = line();
  own.socket.write(call("one", "first"));
  assert.deepEqual(await own.answers(1), [{ status: 200, body: "one=first", connection: "keep-alive" }]);
  own.socket.write(call("bytes-two", ""));
  assert.equal((await own.answers(2))[1]!.body, "bytes-two=");
  assert.match(
    own.heard,
    /^HTTP\/1\.1 200 OK\r\nx-amzn-requestid: id\r\ncontent-type: text\/plain\r\ncontent-length: 9\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=75\r\n\r\n/,
  );
  assert.deepEqual(plain, []);
  assert.ok(service.isIdle);
});

test("a body may come in any pieces, and what comes behind it belongs to the next call", async (t) => {
  const { line, plain } = await open(t);
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(
          fc.constantFrom("one", "bytes", "other"),
          fc.string({ unit: "binary-ascii", maxLength: 60 }),
          fc.boolean(),
        ),
        { minLength: 1, maxLength: 5 },
      ),
      fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 12 }),
      async (calls, cuts) => {
        const own = line();
        const bytes = Buffer.concat(
          calls.map(([target, body, kept]) => call(target, body, kept ? "Content-Type: kept\r\n" : "")),
        );
        let at = 0;
        for (const cut of cuts) {
          own.socket.write(bytes.subarray(at, at + cut));
          at += cut;
          await new Promise((resolve) => setImmediate(resolve));
        }
        own.socket.write(bytes.subarray(at));
        const bodies = (await own.answers(calls.length)).map(({ body }) => body);
        own.socket.destroy();
        // From the first call that is not for the lane on, Node's server has the connection; so it has from
        // the first head that came in pieces.
        for (const [i, [target, body]] of calls.entries()) {
          assert.ok(bodies[i] === `${target}=${body}` || bodies[i] === `plain=${body}`, bodies[i]);
          if (target === "other") assert.equal(bodies[i], `plain=${body}`);
          if (i > 0 && bodies[i - 1]!.startsWith("plain=")) assert.equal(bodies[i], `plain=${body}`);
        }
      },
    ),
    { numRuns: 200 },
  );
  assert.ok(plain.length > 0);
});

test("large bodies of many connections at once do not mix", async (t) => {
  const { line } = await open(t);
  await Promise.all(
    Array.from({ length: 12 }, async (_, i) => {
      const own = line();
      const body = String.fromCharCode(97 + i).repeat(70_000 + i);
      for (let turn = 1; turn <= 5; turn++) {
        own.socket.write(call("one", body, i % 2 === 0 ? "Content-Type: kept\r\n" : ""));
        assert.equal((await own.answers(turn))[turn - 1]!.body, `one=${body}`);
      }
    }),
  );
});

test("a connection goes to Node's server with the first request that is unusual, and stays there", async (t) => {
  const { line, plain, service } = await open(t);
  const own = line();
  own.socket.write(call("one", "a"));
  await own.answers(1);
  own.socket.write(
    "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: one\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n",
  );
  await own.answers(2);
  own.socket.write(call("one", "c"));
  const bodies = (await own.answers(3)).map(({ body }) => body);
  assert.deepEqual(bodies.slice(0, 1), ["one=a"]);
  assert.deepEqual(plain, ["one", "one"]);
  assert.equal(service.heads.length, 1);
});

test("a body that is too large for the lane goes to Node's server", async (t) => {
  const { line, plain } = await open(t);
  const own = line();
  const body = "x".repeat(2_000_001);
  own.socket.write(call("one", body));
  assert.equal((await own.answers(1))[0]!.body.length, "plain=".length + body.length);
  assert.deepEqual(plain, ["one"]);
});

test("while the memory for bodies is full, calls are refused and their connections stay good", async (t) => {
  const { line, service } = await open(t);
  const own = line();
  own.socket.write(call("one", "x".repeat(BUDGET_BYTES + 1)));
  assert.deepEqual(await own.answers(1), [{ status: 503, body: "API_BUSY", connection: "keep-alive" }]);
  own.socket.write(call("one", "again"));
  assert.equal((await own.answers(2))[1]!.body, "one=again");
  assert.ok(service.isIdle);
});

test("thousands of calls in one piece, of which each is refused at once, are answered one after the other", async (t) => {
  const service = new Echo();
  const lane = new RequestLane(
    service,
    { requestMs: 1_000, keepAliveMs: 1_000, stalledMs: 1_000 },
    new StillClock(),
  );
  const calls = 3_000;
  const server = createServer((socket) => {
    lane.adopt(socket, Buffer.concat(new Array<Buffer>(calls).fill(call("one", "x"))), () => {});
  }).listen(0, "127.0.0.1");
  t.after(() => {
    lane.close();
    server.close();
  });
  assert.ok(service.budget.take(BUDGET_BYTES));
  await new Promise((resolve) => server.once("listening", resolve));
  const own = new Line((server.address() as AddressInfo).port);
  t.after(() => own.socket.destroy());
  const answers = await own.answers(calls);
  assert.ok(answers.every(({ status, body }) => status === 503 && body === "API_BUSY"));
});

test("a client that leaves in the middle of its body gives its memory back", async (t) => {
  const { line, service } = await open(t);
  const own = line();
  own.socket.write(call("one", "x".repeat(100_000)).subarray(0, 60_000));
  await until(() => service.heads.length === 1 && !service.isIdle);
  own.socket.resetAndDestroy();
  await until(() => service.refused.length === 1);
  assert.deepEqual(service.refused, ["BODY_CUT_OFF"]);
  assert.ok(service.isIdle);
});

test("a client that leaves before its answer harms nobody", async (t) => {
  const { line, service, door } = await open(t);
  service.held = [];
  const own = line();
  own.socket.write(call("one", "a"));
  await until(() => service.held!.length === 1);
  assert.ok(!service.asker!.isGone);
  own.socket.resetAndDestroy();
  await until(() => door.connections === 0);
  assert.ok(service.asker!.isGone);
  service.held[0]!();
  service.held = undefined;
  assert.ok(service.isIdle);
  const other = line();
  other.socket.write(call("one", "b"));
  assert.equal((await other.answers(1))[0]!.body, "one=b");
});

test("a client that has closed its side gets its answers", async (t) => {
  const { line, service } = await open(t);
  service.held = [];
  const own = line();
  own.socket.end(Buffer.concat([call("one", "a"), call("one", "b")]));
  await until(() => service.held!.length === 1);
  await until(() => service.asker!.hasSaidAll);
  assert.ok(!service.asker!.isGone);
  service.held[0]!();
  await until(() => service.held!.length === 2);
  service.held[1]!();
  await own.closed;
  assert.deepEqual(
    (await own.answers(2)).map(({ body }) => body),
    ["one=a", "one=b"],
  );
});

test("calls that came together with their client's end are all answered, also where the stream has read ahead", async (t) => {
  const { door } = await open(t);
  // As a TLS socket does, which has decrypted all that came before anybody listens.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    Object.assign(socket, { encrypted: true });
    socket.read(0);
    void until(() => socket.readableLength > 0 && !isReading(socket)).then(() => door.adopt(socket));
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const own = new Line((server.address() as AddressInfo).port);
  t.after(() => own.socket.destroy());
  own.socket.end(Buffer.concat([call("one", "a"), call("one", "b"), call("one", "c")]));
  await own.closed;
  assert.deepEqual(own.heard.match(/one=./g), ["one=a", "one=b", "one=c"]);
});

test("who does not read answers is not read from, either", async (t) => {
  const { line, service } = await open(t);
  service.answerBytes = 400_000;
  const own = line();
  own.socket.pause();
  const calls = 40;
  for (let i = 0; i < calls; i++) own.socket.write(call("bytes", "a"));
  let seen = -1;
  while (seen !== service.heads.length) {
    seen = service.heads.length;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(seen < calls, `${seen} answers were made for nobody`);
  own.socket.resume();
  assert.equal((await own.answers(calls)).length, calls);
});

test("who is silent or slow is let go", async (t) => {
  const { line, service, clock, door } = await open(t);
  const idle = line();
  idle.socket.write(call("one", "a"));
  await idle.answers(1);
  const slow = line();
  slow.socket.write(call("one", "x".repeat(1_000)).subarray(0, 500));
  await until(() => service.heads.length === 2);
  clock.aheadMs += 50_000;
  door.sweep();
  clock.aheadMs += 20_000;
  door.sweep();
  await slow.closed;
  assert.equal(slow.heard, "");
  assert.deepEqual(service.refused, ["BODY_CUT_OFF"]);
  idle.socket.write(call("one", "b"));
  await idle.answers(2);
  clock.aheadMs += 70_000;
  door.sweep();
  idle.socket.write(call("one", "c"));
  await idle.answers(3);
  clock.aheadMs += 80_000;
  door.sweep();
  await idle.closed;
  assert.equal(door.connections, 0);
});

/** Larger than what the kernel takes of it. */
const LARGE_ANSWER_BYTES = 12_000_000;

test("an answer may take long to be read, but not rest", async (t) => {
  const { line, service, clock, door } = await open(t);
  service.answerBytes = LARGE_ANSWER_BYTES;
  const slow = line();
  slow.socket.write(call("bytes", "a"));
  await until(() => slow.heard.length > 0);
  slow.socket.pause();
  for (let second = 0; second < 300; second += 60) {
    clock.aheadMs += 60_000;
    door.sweep();
  }
  slow.socket.resume();
  let isCut = false;
  void slow.closed.then(() => {
    isCut = true;
  });
  await until(() => isCut || slow.heard.length > LARGE_ANSWER_BYTES);
  assert.ok(!isCut, `cut off behind ${slow.heard.length} bytes`);
  service.answerBytes = 0;
  // From here on it is silent.
  door.sweep();
  slow.socket.write(call("one", "b"));
  await slow.answers(2);
  clock.aheadMs += 80_000;
  door.sweep();
  await slow.closed;
});

test("closing lets an answer go out that is not read yet", async (t) => {
  const { line, service, door } = await open(t);
  service.answerBytes = LARGE_ANSWER_BYTES;
  const slow = line();
  slow.socket.write(call("bytes", "a"));
  await until(() => slow.heard.length > 0);
  slow.socket.pause();
  const closed = door.close();
  slow.socket.resume();
  await slow.closed;
  assert.ok(slow.heard.length > LARGE_ANSWER_BYTES, `${slow.heard.length} bytes came`);
  await Promise.all([slow.closed, closed]);
});

test("closing answers what has begun, says that it was the last, and lets the idle go", async (t) => {
  const { line, service, door } = await open(t);
  const idle = line();
  idle.socket.write(call("one", "a"));
  await idle.answers(1);
  service.held = [];
  const busy = line();
  busy.socket.write(call("one", "b"));
  await until(() => service.held!.length === 1);
  const closed = door.close();
  await idle.closed;
  service.held[0]!();
  assert.deepEqual(await busy.answers(1), [{ status: 200, body: "one=b", connection: "close" }]);
  await Promise.all([busy.closed, closed]);
});
