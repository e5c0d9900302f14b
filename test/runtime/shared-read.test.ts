import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { readPlain, readShared } from "../../runtime/shared-read.ts";

/** A server that reads as it is told, and a way to connect to it. */
async function serve(context: TestContext, accept: (socket: Socket) => void): Promise<() => Socket> {
  const server = createServer(accept);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const clients: Socket[] = [];
  context.after(() => {
    for (const client of clients) client.destroy();
    server.close();
  });
  return () => {
    const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
    clients.push(client.on("error", () => {}));
    return client;
  };
}

for (const [name, read] of Object.entries({ readShared, readPlain })) {
  test(`${name}: several sockets at once are heard byte for byte, and their ends`, async (context) => {
    const heard: Array<Promise<string>> = [];
    const open = await serve(context, (socket) => {
      const hash = createHash("sha256");
      read(socket, (chunk) => hash.update(chunk));
      heard.push(once(socket, "end").then(() => hash.digest("hex")));
    });
    const sent = [3_000_000, 1, 70_000, 1_000_000].map((bytes) => randomBytes(bytes));
    await Promise.all(
      sent.map(async (bytes) => {
        const client = open();
        client.end(bytes);
        client.resume();
        await once(client, "close");
      }),
    );
    const expected = sent.map((bytes) => createHash("sha256").update(bytes).digest("hex"));
    assert.deepEqual((await Promise.all(heard)).sort(), expected.sort());
  });

  test(`${name}: a socket that is paused is not read`, async (context) => {
    let resume = (): void => {};
    let heard = 0;
    let wake = (): void => {};
    const open = await serve(context, (socket) => {
      read(socket, (chunk) => {
        heard += chunk.length;
        socket.pause();
        resume = () => socket.resume();
        wake();
      });
    });
    const next = (): Promise<void> =>
      new Promise((resolve) => {
        wake = resolve;
      });
    const client = open();
    let came = next();
    client.write("1");
    await came;
    const readOn = resume;
    client.write("2");
    // What another socket says is heard, and had the second byte been read, it would have been before.
    came = next();
    open().write("3");
    await came;
    assert.equal(heard, 2);
    came = next();
    readOn();
    await came;
    assert.equal(heard, 3);
  });
}

test("an accepted socket is read into the shared memory on the Node that this runs on", async (context) => {
  const ways: string[] = [];
  const open = await serve(context, (socket) => {
    ways.push(readShared(socket, () => socket.end()).way);
  });
  const client = open();
  client.write("1");
  client.resume();
  await once(client, "close");
  assert.deepEqual(ways, ["shared"]);
});

for (const [name, read] of Object.entries({ readShared, readPlain })) {
  test(`${name}: what comes after the release is the stream's own again`, async (context) => {
    const taken: string[] = [];
    const hash = createHash("sha256");
    let ended: Promise<unknown> | undefined;
    const open = await serve(context, (socket) => {
      const reading = read(socket, (chunk) => {
        taken.push(chunk.toString());
        reading.release();
        // Whoever takes it over finds it as it was, and reads at leisure.
        socket.pause();
        socket.unshift(Buffer.from(chunk));
        ended = (async () => {
          for await (const piece of socket) hash.update(piece as Buffer);
        })();
        socket.write("released");
      });
    });
    const client = open();
    client.write("first");
    await once(client, "data");
    const rest = randomBytes(3_000_000);
    client.end(rest);
    await once(client, "close");
    await ended;
    assert.deepEqual(taken, ["first"]);
    const whole = createHash("sha256").update("first").update(rest);
    assert.equal(hash.digest("hex"), whole.digest("hex"));
  });
}
