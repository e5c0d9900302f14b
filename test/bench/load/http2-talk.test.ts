import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { type AddressInfo, connect } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { NONE_FAILED } from "../../../bench/load/answer-check.ts";
import { type Driven, drive } from "../../../bench/load/drive.ts";
import {
  FLAG,
  FRAME,
  frame,
  headerBlock,
  PREFACE,
  SETTING,
  settings,
  windowUpdate,
} from "../../../bench/load/http2-frames.ts";
import { Http2Talk, http2Message } from "../../../bench/load/http2-talk.ts";
import { call, putRecordsBody, signed } from "../../../bench/load/kinesis-requests.ts";
import { KEY, openFixture } from "../../gateway/api/api-fixture.ts";

const RECORDS = 200;
const OK = Buffer.of(0x88);

/** Where nobody is answered at all, as a load is ended by what it is refused. */
const LONG_MS = 60_000;

function driven(port: number, talks: Http2Talk[], measureMs: number): Promise<Driven> {
  return drive(talks, { host: "127.0.0.1", port, window: 1, warmMs: 0, measureMs, onWarm: () => {} });
}

/** A load in which something was answered. @returns also how many connections all loads had until then */
async function drivenWell(port: number, talks: () => Http2Talk[]): Promise<Driven & { talks: number }> {
  let made = 0;
  for (let measureMs = 300; ; measureMs *= 2) {
    const some = talks();
    made += some.length;
    try {
      return { ...(await driven(port, some, measureMs)), talks: made };
    } catch (error) {
      // A disk that stalls for longer than was measured; then it is measured for longer.
      if (measureMs > LONG_MS || !/nothing was answered/.test(String(error))) throw error;
    }
  }
}

async function gateway(t: TestContext) {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const endpoint = { port: fixture.port, key: KEY };
  await call(endpoint, "CreateStream", { StreamName: "bench", ShardCount: 1 });
  const iterator = async (): Promise<string> => {
    const input = { StreamName: "bench", ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON" };
    return (await call<{ ShardIterator: string }>(endpoint, "GetShardIterator", input)).ShardIterator;
  };
  const stored = async (): Promise<number> => {
    let count = 0;
    for (let at = await iterator(); ; ) {
      const page = await call<{ NextShardIterator: string; Records: unknown[] }>(endpoint, "GetRecords", {
        ShardIterator: at,
      });
      if (page.Records.length === 0) return count;
      count += page.Records.length;
      at = page.NextShardIterator;
    }
  };
  return { endpoint, stored };
}

for (const frameBytes of [Number.POSITIVE_INFINITY, 16_384, 1_000]) {
  test(`a gateway has what it answered to a load, in frames of up to ${frameBytes} bytes`, async (t) => {
    const { endpoint, stored } = await gateway(t);
    const messages = [0, 1, 2].map((nth) =>
      http2Message(signed(endpoint, "PutRecords", putRecordsBody("bench", RECORDS, 200, nth))),
    );
    let answered = 0;
    const talking = (nth: number): Http2Talk => {
      const talk = new Http2Talk(messages, nth, NONE_FAILED, frameBytes);
      const taken = talk.taken.bind(talk);
      talk.taken = (chunk) => {
        const done = taken(chunk);
        answered += done;
        return done;
      };
      return talk;
    };
    const { requests, p50Ms, talks } = await drivenWell(endpoint.port, () => [0, 1].map(talking));
    assert.ok(requests > 0 && requests <= answered && p50Ms > 0, `${requests} of ${answered}`);
    // What was under way when the load ended may be stored as well: one request on each connection.
    const more = (await stored()) / RECORDS - answered;
    assert.ok(more >= 0 && more <= talks, `${more} more are stored`);
  });
}

test("a body larger than every window arrives whole", async (t) => {
  const { endpoint, stored } = await gateway(t);
  // Three times the window of a stream, and of the connection.
  const body = putRecordsBody("bench", 3, 786_000, 0);
  const message = http2Message(signed(endpoint, "PutRecords", body));
  const { requests } = await drivenWell(endpoint.port, () => [new Http2Talk([message], 0, NONE_FAILED)]);
  assert.ok(requests > 0);
  assert.ok((await stored()) >= 3 * requests);
});

test("a refusal ends the load, with what the gateway said", async (t) => {
  const { endpoint } = await gateway(t);
  const wrong = { ...endpoint, key: { id: KEY.id, secret: "another" } };
  const message = http2Message(signed(wrong, "PutRecords", putRecordsBody("bench", 1, 200, 0)));
  await assert.rejects(
    driven(endpoint.port, [new Http2Talk([message], 0)], LONG_MS),
    /refused: .*signature/is,
  );
  const fine = http2Message(signed(endpoint, "ListStreams", Buffer.from("{}")));
  const talks = [new Http2Talk([fine], 0, NONE_FAILED)];
  await assert.rejects(driven(endpoint.port, talks, LONG_MS), /not the answer/);
});

test("headers are read as they were meant", async (t) => {
  const server = http2.createServer();
  server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    stream.end(JSON.stringify(headers));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const values = fc.string({ unit: fc.constantFrom(..."aZ09-_/=+.,;"), maxLength: 400 });
  await fc.assert(
    fc.asyncProperty(values, fc.integer({ min: 100, max: 300 }), async (one, length) => {
      const sent = { "x-one": one, "x-two": "b".repeat(length), authorization: "secret" };
      const socket = connect(port, "127.0.0.1");
      const heads = frame(
        FRAME.headers,
        FLAG.endHeaders | FLAG.endStream,
        1,
        headerBlock("127.0.0.1:1", sent),
      );
      socket.write(Buffer.concat([PREFACE, settings([]), heads]));
      let heard = "";
      let json: string | undefined;
      for await (const chunk of socket) {
        heard += (chunk as Buffer).toString("latin1");
        json = /\{":method".*"\}/s.exec(heard)?.[0];
        if (json !== undefined) break;
      }
      assert.ok(json, "it answered");
      const echo = JSON.parse(json) as Record<string, string>;
      assert.deepEqual(
        [echo[":method"], echo[":scheme"], echo[":path"], echo[":authority"]],
        ["POST", "http", "/", "127.0.0.1:1"],
      );
      assert.deepEqual([echo["x-one"], echo["x-two"], echo.authorization], [one, sent["x-two"], "secret"]);
    }),
    { numRuns: 60 },
  );
});

/** A talk, what it has said, and its first request under way. */
function talking(bodyBytes: number, serverSettings: Buffer) {
  const message = { head: Buffer.of(0x83), body: Buffer.alloc(bodyBytes, 1) };
  const talk = new Http2Talk([message], 0);
  const said: Buffer[] = [];
  void talk.meet((bytes) => said.push(Buffer.from(bytes)));
  said.length = 0;
  talk.taken(serverSettings);
  const first = Buffer.concat(talk.next());
  return { talk, said, first };
}

/** The payloads' lengths of DATA frames, and which of them end the stream. */
function dataFrames(bytes: Buffer): string[] {
  const found: string[] = [];
  for (let at = 0; at < bytes.length; at += 9 + bytes.readUIntBE(at, 3)) {
    if (bytes[at + 3] !== FRAME.data) continue;
    found.push(`${bytes.readUInt32BE(at + 5)}:${bytes.readUIntBE(at, 3)}${bytes[at + 4] === 1 ? "." : ""}`);
  }
  return found;
}

test("it sends what the windows and frames allow, and no more", () => {
  const allowed = settings([
    [SETTING.initialWindowSize, 30_000],
    [SETTING.maxFrameSize, 20_000],
  ]);
  const { talk, said, first } = talking(100_000, allowed);
  assert.deepEqual(said, [frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0))]);
  assert.deepEqual(dataFrames(first), ["1:20000", "1:10000"]);
  said.length = 0;
  talk.taken(windowUpdate(1, 5_000));
  assert.deepEqual(dataFrames(Buffer.concat(said)), ["1:5000"]);
  said.length = 0;
  // RFC 9113 §6.9.2: the change counts for what is open. The connection has 65,535 - 35,000 left.
  talk.taken(settings([[SETTING.initialWindowSize, 1_000_000]]));
  assert.deepEqual(dataFrames(Buffer.concat(said)), ["1:20000", "1:10535"]);
  said.length = 0;
  talk.taken(windowUpdate(0, 1_000_000));
  assert.deepEqual(dataFrames(Buffer.concat(said)), ["1:20000", "1:14465."]);
});

test("answers are heard in any pieces, and pings are answered", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(200), { maxLength: 30 }), (cuts) => {
      const { talk, said } = talking(10, settings([]));
      const answer = Buffer.concat([
        frame(FRAME.ping, 0, 0, Buffer.from("12345678")),
        frame(FRAME.headers, FLAG.endHeaders, 1, OK),
        frame(FRAME.data, 0, 1, Buffer.alloc(100)),
        windowUpdate(1, 10),
        frame(FRAME.data, FLAG.endStream, 1, Buffer.alloc(50)),
      ]);
      const points = [
        0,
        ...cuts.map((cut) => Math.min(cut, answer.length)).sort((a, b) => a - b),
        answer.length,
      ];
      let done = 0;
      for (const [i, to] of points.entries()) done += talk.taken(answer.subarray(points[i - 1] ?? 0, to));
      assert.equal(done, 1);
      assert.deepEqual(said.at(-1), frame(FRAME.ping, FLAG.ack, 0, Buffer.from("12345678")));
      assert.equal(Buffer.concat(talk.next()).readUInt32BE(5), 3, "ids are odd and rise");
    }),
  );
});

for (const [what, bytes, expected] of [
  ["GOAWAY", frame(FRAME.goAway, 0, 0, Buffer.alloc(8)), /GOAWAY/],
  ["RST_STREAM", frame(FRAME.reset, 0, 1, Buffer.of(0, 0, 0, 8)), /reset stream 1: error 8/],
  ["another stream", frame(FRAME.headers, FLAG.endHeaders, 3, OK), /an answer on stream 3/],
  ["a body without headers", frame(FRAME.data, FLAG.endStream, 1, Buffer.alloc(3)), /before its headers/],
  ["a frame that was not allowed", frame(FRAME.data, 0, 1, Buffer.alloc(16_385)), /too large/],
  ["a push", frame(5, 0, 1, Buffer.alloc(4)), /type 5/],
] as const) {
  test(`it does not go on after ${what}`, () => {
    const { talk } = talking(10, settings([]));
    assert.throws(() => talk.taken(bytes), expected);
  });
}

test("it does not take an answer of another status for one that counts", () => {
  const { talk } = talking(10, settings([]));
  // `:status 400` of the static table.
  talk.taken(frame(FRAME.headers, FLAG.endHeaders, 1, Buffer.of(0x8c)));
  assert.throws(
    () => talk.taken(frame(FRAME.data, FLAG.endStream, 1, Buffer.from("no such stream"))),
    /refused: no such stream/,
  );
});
