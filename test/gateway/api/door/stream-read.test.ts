import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http2, { type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import test, { type TestContext } from "node:test";
import { readStream, readStreamPlain } from "../../../../gateway/api/door/stream-read.ts";

const LARGE_FRAME_BYTES = 1_048_576;

/** A client of a server that does with each stream what it is told. */
async function serve(
  t: TestContext,
  accept: (stream: ServerHttp2Stream) => void,
): Promise<http2.ClientHttp2Session> {
  const server = http2.createServer({
    settings: { maxFrameSize: LARGE_FRAME_BYTES, initialWindowSize: LARGE_FRAME_BYTES },
  });
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    accept(stream);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  client.on("error", () => {});
  t.after(() => {
    client.destroy();
    server.close();
  });
  return client;
}

function post(client: http2.ClientHttp2Session): http2.ClientHttp2Stream {
  const stream = client.request({ ":method": "POST", ":path": "/" });
  stream.on("error", () => {});
  return stream;
}

async function answerOf(stream: http2.ClientHttp2Stream): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += (chunk as Buffer).toString();
  return text;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

for (const [name, read] of Object.entries({ readStream, readStreamPlain })) {
  test(`${name}: several streams at once are heard byte for byte, and their ends`, async (t) => {
    const client = await serve(t, (stream) => {
      const hash = createHash("sha256");
      read(stream, (chunk) => hash.update(chunk));
      stream.on("end", () => {
        stream.respond({ ":status": 200 });
        stream.end(hash.digest("hex"));
      });
    });
    const bodies = [3_000_000, 0, 1, 70_000, 65_536, 65_537, 1_000_000].map((bytes) => randomBytes(bytes));
    const answers = bodies.map((body) => {
      const stream = post(client);
      for (let at = 0; at < body.length; at += 100_000) stream.write(body.subarray(at, at + 100_000));
      stream.end();
      return answerOf(stream);
    });
    assert.deepEqual(await Promise.all(answers), bodies.map(sha256));
  });

  test(`${name}: a stream that is reset ends, and the others go on`, async (t) => {
    const closed: Promise<unknown>[] = [];
    let heard = 0;
    const client = await serve(t, (stream) => {
      closed.push(once(stream, "close"));
      read(stream, (chunk) => {
        heard += chunk.length;
      });
      stream.on("end", () => {
        if (stream.aborted) return;
        stream.respond({ ":status": 200 });
        stream.end("whole");
      });
    });
    const left = post(client);
    left.write(randomBytes(100_000));
    const other = post(client);
    other.write("some");
    while (heard < 100_004) await new Promise((resolve) => setImmediate(resolve));
    left.close(http2.constants.NGHTTP2_CANCEL);
    await closed[0];
    other.end("more");
    assert.equal(await answerOf(other), "whole");
    assert.equal(heard, 100_008);
  });
}

test("this version of Node has what it takes, also when the body has ended before it is read", async (t) => {
  const ways: string[] = [];
  const client = await serve(t, (stream) => {
    const took: string[] = [];
    ways.push(readStream(stream, (chunk) => took.push(chunk.toString())));
    stream.on("end", () => {
      stream.respond({ ":status": 200 });
      stream.end(took.join(""));
    });
  });
  const bare = post(client);
  bare.end();
  assert.equal(await answerOf(bare), "");
  const short = post(client);
  short.end("short");
  assert.equal(await answerOf(short), "short");
  assert.deepEqual(ways, ["shared", "shared"]);
});

test("bytes are put where they are wanted, and into the shared memory where there is no room", async (t) => {
  const place = Buffer.alloc(100_000);
  let used = 0;
  let elsewhere = 0;
  const client = await serve(t, (stream) => {
    const room = (): Buffer | undefined => (used === place.length ? undefined : place.subarray(used));
    const taken = (chunk: Buffer): void => {
      if (chunk.buffer !== place.buffer) elsewhere += chunk.length;
      else {
        assert.equal(chunk.byteOffset, place.byteOffset + used);
        used += chunk.length;
      }
    };
    assert.equal(readStream(stream, taken, room), "shared");
    stream.on("end", () => {
      stream.respond({ ":status": 200 });
      stream.end("read");
    });
  });
  const body = randomBytes(150_000);
  const stream = post(client);
  stream.end(body);
  assert.equal(await answerOf(stream), "read");
  assert.ok(place.equals(body.subarray(0, place.length)));
  assert.equal(elsewhere, body.length - place.length);
});

test("what has come before somebody reads is not lost", async (t) => {
  let isRead = (): void => {};
  const reading = new Promise<void>((resolve) => {
    isRead = resolve;
  });
  const client = await serve(t, (stream) => {
    stream.once("readable", () => {
      const took: string[] = [];
      assert.ok(stream.readableLength > 0);
      assert.equal(
        readStream(stream, (chunk) => took.push(chunk.toString())),
        "plain",
      );
      stream.resume();
      isRead();
      stream.on("end", () => {
        stream.respond({ ":status": 200 });
        stream.end(took.join(""));
      });
    });
  });
  const early = post(client);
  early.write("early");
  await reading;
  early.end(" and late");
  assert.equal(await answerOf(early), "early and late");
});
