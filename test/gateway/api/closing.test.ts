/** A door that closes: no call is performed whose answer cannot come, and answers under way are not cut. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import { FrontDoor } from "../../../gateway/api/door/front-door.ts";
import { StillClock } from "./api-fixture.ts";
import { Echo } from "./lane-echo.ts";
import type { WaitingCalls } from "./waiting-calls.ts";

const LARGE_BYTES = 10_000_000;

interface Opened {
  readonly service: Echo;
  readonly door: FrontDoor;
  /** Of what Node's server got; the test answers. */
  readonly replies: ServerResponse[];
  client(): Client;
}

/** One connection; it reads when it is told to. */
class Client {
  readonly socket: Socket;
  readonly #chunks: Buffer[] = [];

  constructor(port: number) {
    this.socket = connect({ port, host: "127.0.0.1" });
    this.socket.pause();
    this.socket.on("error", () => {});
    this.socket.on("data", (chunk) => this.#chunks.push(chunk));
    this.socket.pause();
  }

  /** All that comes until the connection ends, and how it ended. */
  readonly rest = async (): Promise<{ text: string; wasCut: boolean }> => {
    let wasCut = true;
    this.socket.once("end", () => {
      wasCut = false;
    });
    const closed = once(this.socket, "close");
    this.socket.resume();
    await closed;
    return { text: Buffer.concat(this.#chunks).toString("latin1"), wasCut };
  };
}

/** @param handed gets what Node's server is to answer; without it the test finds that in `replies` */
async function open(t: TestContext, handed?: (reply: ServerResponse) => void): Promise<Opened> {
  const service = new Echo();
  const replies: ServerResponse[] = [];
  const take = handed ?? ((reply) => void replies.push(reply));
  const door = new FrontDoor(
    "127.0.0.1",
    0,
    (request, reply) => {
      request.resume();
      request.on("end", () => take(reply as ServerResponse));
    },
    () => {},
    { service, clock: new StillClock() },
  );
  await door.start();
  t.after(() => door.close());
  return { service, door, replies, client: () => new Client(door.address.port) };
}

/** @param header makes it unusual, so that it goes to Node's server */
function call(target: string, header = ""): string {
  return `POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: ${target}\r\n${header}Content-Length: 1\r\n\r\n.`;
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
}

test("a call that comes behind the last answer of a closing lane is not performed", async (t) => {
  const { service, door, client } = await open(t);
  service.held = [];
  const { socket, rest } = client();
  socket.write(call("first"));
  await until(() => service.held?.length === 1);
  const closed = door.close();
  service.held[0]!();
  socket.write(call("second"));
  const { text, wasCut } = await rest();
  await closed;
  assert.match(text, /connection: close\r\n[\s\S]*first=\.$/i);
  assert.equal(wasCut, false);
  assert.deepEqual(
    service.heads.map(({ target }) => target),
    ["first"],
  );
});

test("a slow reader's answer ends the connection as soon as it is read", async (t) => {
  const { service, door, client } = await open(t);
  service.answerBytes = LARGE_BYTES;
  const { socket, rest } = client();
  socket.write(call("first"));
  await once(socket, "readable");
  const startedMs = performance.now();
  const closed = door.close();
  const { text, wasCut } = await rest();
  await closed;
  assert.ok(text.length > LARGE_BYTES, "the answer came whole");
  assert.equal(wasCut, false);
  assert.ok(performance.now() - startedMs < 1_900, "nothing waited for the force");
});

test("what Node's server answers while the door closes is said to be the last, and its connection ends", async (t) => {
  const { door, replies, client } = await open(t);
  const { socket, rest } = client();
  socket.write(call("one", "TE: trailers\r\n"));
  await until(() => replies.length === 1);
  const closed = door.close();
  const heard = rest();
  replies[0]!.end("done");
  const { text, wasCut } = await heard;
  assert.match(text, /^HTTP\/1\.1 200 OK\r\n[\s\S]*connection: close\r\n[\s\S]*done$/i);
  assert.equal(wasCut, false);
  await closed;
});

test("calls pipelined to Node's server before it closes are all answered, and none behind them is looked at", async (t) => {
  const { door, replies, client } = await open(t);
  const { socket, rest } = client();
  socket.write(call("one", "TE: trailers\r\n").repeat(3));
  await until(() => replies.length === 3);
  const closed = door.close();
  socket.write(call("behind", "TE: trailers\r\n"));
  await until(() => replies[0]!.socket!.bytesRead >= socket.bytesWritten);
  for (const [index, reply] of replies.entries()) reply.end(`${index}`);
  const { text, wasCut } = await rest();
  await closed;
  assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 3);
  assert.equal(wasCut, false);
  assert.equal(replies.length, 3);
});

test("a large answer of Node's server that is being read outlives the close", async (t) => {
  const { door, replies, client } = await open(t);
  const { socket, rest } = client();
  socket.write(call("one", "TE: trailers\r\n"));
  await until(() => replies.length === 1);
  replies[0]!.end(Buffer.alloc(LARGE_BYTES, "x"));
  await once(socket, "readable");
  const closed = door.close();
  const { text, wasCut } = await rest();
  assert.ok(text.length > LARGE_BYTES, "it came whole");
  assert.equal(wasCut, false);
  await closed;
});

test("calls that the kernel has had when the door closes are answered, in whatever way", async (t) => {
  const { door, client } = await open(t, (reply) => reply.end("by Node's"));
  // One that has been there for long, and is idle.
  const known = client();
  known.socket.write(call("before"));
  await once(known.socket, "readable");
  const calls = Array.from({ length: 8 }, (_, i) => call("lane", i % 2 === 0 ? "" : "TE: trailers\r\n"));
  const sent = new Int32Array(new SharedArrayBuffer(4));
  const workerData: WaitingCalls = { port: door.address.port, calls, sent };
  const clients = new Worker(new URL("./waiting-calls.js", import.meta.url), { workerData });
  t.after(() => clients.terminate());
  const answered = once(clients, "message");
  assert.equal(Atomics.wait(sent, 0, 0, 60_000), "ok");
  known.socket.write(call("behind"));
  const closed = door.close();
  const { text, wasCut } = await known.rest();
  const [answers] = (await answered) as [readonly string[]];
  await closed;
  assert.match(text, /before=\.[\s\S]*behind=\.$/);
  assert.equal(wasCut, false);
  assert.equal(answers.length, 16);
  for (const answer of answers) assert.match(answer, /(lane=\.|by Node's|^h2=\.)$/);
});
