import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { eventually } from "./program.ts";
import { TcpProxy } from "./tcp-proxy.ts";

interface Ends {
  readonly proxy: TcpProxy;
  /** A new client and the connection that the target has of it. */
  readonly pair: () => Promise<{ client: End; target: End }>;
}

/** What one end of a connection heard. */
class End {
  readonly socket: Socket;
  readonly chunks: Buffer[] = [];
  finished = false;
  error: string | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => this.chunks.push(chunk));
    socket.on("end", () => {
      this.finished = true;
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.error = error.code;
    });
  }

  get heard(): Buffer {
    return Buffer.concat(this.chunks);
  }

  async hears(bytes: number): Promise<Buffer> {
    await eventually(`${bytes} bytes`, 60_000, async () => (this.heard.length >= bytes ? true : undefined));
    return this.heard;
  }
}

async function ends(t: TestContext): Promise<Ends> {
  const accepted: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy = new TcpProxy({ targetPort: (server.address() as { port: number }).port, random: () => 0.5 });
  await proxy.start();
  const clients: Socket[] = [];
  t.after(async () => {
    for (const socket of [...clients, ...accepted]) socket.destroy();
    await proxy.close();
    await proxy.close();
    await new Promise((resolve) => server.close(resolve));
  });
  const pair = async (): Promise<{ client: End; target: End }> => {
    const before = accepted.length;
    const socket = connect({ port: proxy.port, host: "127.0.0.1", allowHalfOpen: true });
    clients.push(socket);
    const client = new End(socket);
    const target = await eventually("a connection", 60_000, async () => accepted[before]);
    return { client, target: new End(target) };
  };
  return { proxy, pair };
}

/** Long enough for loopback, so that what has not come by then is being held back. */
const HELD_MS = 150;

function held(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, HELD_MS));
}

test("a good network brings every byte in order, both ways, and each end's FIN", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  const [up, down] = [randomBytes(3_000_000), randomBytes(2_000_000)];
  client.socket.end(up);
  target.socket.write(down);
  assert.ok((await target.hears(up.length)).equals(up));
  assert.ok((await client.hears(down.length)).equals(down));
  await eventually("a FIN", 60_000, async () => (target.finished ? true : undefined));
  assert.equal(client.finished, false);
  target.socket.end("bye");
  assert.equal((await client.hears(down.length + 3)).subarray(down.length).toString(), "bye");
  await eventually("nothing is open", 60_000, async () => (proxy.counts().open === 0 ? true : undefined));
  assert.deepEqual(proxy.counts(), {
    ...{ connections: 1, open: 0, harmed: 0 },
    ...{ upBytes: up.length, downBytes: down.length + 3 },
  });
});

test("a delay holds back, without changing the order and without taking throughput", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  proxy.setQuality({ delayMs: 200, jitterMs: 100 });
  const began = performance.now();
  const bytes = randomBytes(200_000);
  for (let i = 0; i < bytes.length; i += 1_000) client.socket.write(bytes.subarray(i, i + 1_000));
  assert.ok((await target.hears(bytes.length)).equals(bytes));
  const tookMs = performance.now() - began;
  // One after the other they would take 200 times as long.
  assert.ok(tookMs >= 200 && tookMs < 30_000, `${tookMs} ms`);
});

test("a narrow line takes the time that its width asks for", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  proxy.setQuality({ bytesPerSecond: 100_000 });
  const began = performance.now();
  client.socket.write(randomBytes(50_000));
  await target.hears(50_000);
  const tookMs = performance.now() - began;
  assert.ok(tookMs >= 400, `${tookMs} ms`);
});

test("a stalled direction holds everything and loses nothing, the other goes on", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  proxy.stall(["up"]);
  const bytes = randomBytes(2_000_000);
  client.socket.end(bytes);
  target.socket.write("still here");
  await client.hears(10);
  await held();
  assert.equal(target.heard.length, 0);
  const late = await pair();
  late.client.socket.write("me too");
  await held();
  assert.equal(late.target.heard.length, 0);
  proxy.restore();
  assert.ok((await target.hears(bytes.length)).equals(bytes));
  assert.equal((await late.target.hears(6)).toString(), "me too");
  await eventually("a FIN", 60_000, async () => (target.finished ? true : undefined));
});

test("a cut resets both ends, and a new connection works", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  client.socket.write("x");
  await target.hears(1);
  proxy.cut();
  await eventually("two resets", 60_000, async () =>
    client.error === "ECONNRESET" && target.error === "ECONNRESET" ? true : undefined,
  );
  const next = await pair();
  next.client.socket.write("again");
  await next.target.hears(5);
  assert.equal(proxy.counts().harmed, 1);
});

test("a cut after so many bytes lets exactly those through", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  proxy.cutAfter(1_234);
  const bytes = randomBytes(5_000);
  client.socket.write(bytes.subarray(0, 1_000));
  await target.hears(1_000);
  client.socket.write(bytes.subarray(1_000));
  await eventually("a reset", 60_000, async () => (target.error === "ECONNRESET" ? true : undefined));
  assert.ok(target.heard.equals(bytes.subarray(0, 1_234)), `${target.heard.length} bytes`);
  await eventually("a reset", 60_000, async () => (client.error === "ECONNRESET" ? true : undefined));
  const next = await pair();
  next.client.socket.write(bytes);
  await next.target.hears(bytes.length);
});

test("a connection closed in one direction goes on in the other", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  proxy.halfClose("down");
  await eventually("a FIN", 60_000, async () => (client.finished ? true : undefined));
  client.socket.write("do you hear me?");
  await target.hears(15);
  target.socket.write("I do");
  await held();
  assert.equal(client.heard.length, 0);
  assert.equal(target.finished, false);
});

test("a forgotten connection is dead without a word, for good; new ones live once the network is back", async (t) => {
  const { proxy, pair } = await ends(t);
  const { client, target } = await pair();
  client.socket.write("x");
  await target.hears(1);
  proxy.blackhole();
  client.socket.write("y");
  target.socket.end("z");
  await held();
  proxy.restore();
  await held();
  assert.equal(target.heard.toString(), "x");
  assert.deepEqual(
    [client.heard.length, client.finished, client.error, target.error],
    [0, false, undefined, undefined],
  );
  client.socket.destroy();
  await held();
  assert.deepEqual([target.finished, target.error], [false, undefined]);
  const next = await pair();
  next.client.socket.write("back");
  await next.target.hears(4);
});

test("while the network forgets, a new connection is taken and leads nowhere", async (t) => {
  const { proxy } = await ends(t);
  proxy.blackhole();
  const socket = connect({ port: proxy.port, host: "127.0.0.1" });
  t.after(() => socket.destroy());
  await once(socket, "connect");
  const client = new End(socket);
  socket.write("hello?");
  await held();
  assert.deepEqual([client.heard.length, client.finished, client.error], [0, false, undefined]);
  assert.deepEqual([proxy.counts().connections, proxy.counts().open, proxy.counts().harmed], [1, 0, 1]);
});

test("a refused connection is reset, and so is one whose target is away", async (t) => {
  const { proxy, pair } = await ends(t);
  proxy.refuse();
  const refused = new End(connect({ port: proxy.port, host: "127.0.0.1" }));
  await eventually("a reset", 60_000, async () => (refused.error === "ECONNRESET" ? true : undefined));
  proxy.restore();
  const { client, target } = await pair();
  client.socket.write("x");
  await target.hears(1);
  // A port that no test is given, so that nobody listens there by chance.
  const away = new TcpProxy({ targetPort: 1 });
  await away.start();
  t.after(() => away.close());
  const lonely = new End(connect({ port: away.port, host: "127.0.0.1" }));
  await eventually("a reset", 60_000, async () => (lonely.error === "ECONNRESET" ? true : undefined));
});
