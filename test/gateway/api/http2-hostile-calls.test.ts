/** Calls over HTTP/2 by clients that never read, take back, go away, or send frames of their own making. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import { connect } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import {
  FRAME,
  frame,
  headerBlock,
  PREFACE,
  settings,
  windowUpdate,
} from "../../../bench/load/http2-frames.ts";
import { pause } from "../../../runtime/backoff.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { heldAtMost, usedBytes } from "../../support/held-memory.ts";
import { type Fixture, openFixture } from "./api-fixture.ts";
import { AWS_JSON, assertAwsShaped, Complaints, HostileCaller } from "./hostile-calls.ts";
import { sign } from "./sign.ts";

const STREAM = "s";
const SHARDS = 4;
const CONSUMERS = 20;
/** In all shards; each reader that is sent all of its shard's would hold a quarter of it and a third more. */
const STORED_BYTES = 64 * 1_048_576;
const MIB = 1_048_576;

interface Place {
  readonly fixture: Fixture;
  readonly caller: HostileCaller;
  readonly complaints: Complaints;
  subscriptions(): Promise<number>;
  consumerArns: string[];
}

async function open(t: TestContext, consumers: number): Promise<Place> {
  const complaints = new Complaints();
  const metrics = new Metrics();
  const fixture = await openFixture({ log: complaints, api: { metrics } });
  const caller = new HostileCaller(fixture.port);
  t.after(async () => {
    caller.close();
    await fixture.close();
  });
  await fixture.streams.createStream({ name: STREAM, shards: SHARDS, retentionHours: 24 });
  const consumerArns: string[] = [];
  for (let i = 0; i < consumers; i++) {
    const { name, createdMs } = await fixture.streams.registerReader(STREAM, `reader-${i}`, {});
    const seconds = Math.floor(createdMs / 1_000);
    consumerArns.push(`arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}/consumer/${name}:${seconds}`);
  }
  const subscriptions = async (): Promise<number> =>
    Number(/^headwater_kinesis_subscriptions (\d+)$/m.exec(await metrics.render())?.[1]);
  return { fixture, caller, complaints, consumerArns, subscriptions };
}

function session(t: TestContext, origin: string, settings: http2.Settings = {}): http2.ClientHttp2Session {
  const opened = http2.connect(origin, { settings });
  opened.on("error", () => undefined);
  t.after(() => opened.destroy());
  return opened;
}

async function call(
  client: http2.ClientHttp2Session,
  origin: string,
  operation: string,
  input: object,
): Promise<http2.ClientHttp2Stream> {
  const body = JSON.stringify(input);
  const { host, ...headers } = await sign({
    headers: {
      host: new URL(origin).host,
      "content-type": AWS_JSON,
      "x-amz-target": `Kinesis_20131202.${operation}`,
    },
    body,
  });
  const stream = client.request({ ":method": "POST", ":path": "/", ":authority": host!, ...headers });
  stream.on("error", () => undefined);
  stream.end(body);
  return stream;
}

const subscribeTo = (ConsumerARN: string, shard: number): object => ({
  ConsumerARN,
  ShardId: String(shard),
  StartingPosition: { Type: "TRIM_HORIZON" },
});

async function until(what: string, holds: () => Promise<boolean>, maxMs = 60_000): Promise<void> {
  const endMs = performance.now() + maxMs;
  while (!(await holds())) {
    assert.ok(performance.now() < endMs, `in vain: ${what}`);
    await pause(20);
  }
}

/** @throws also when others wait for ever: `caller` has a deadline */
async function isWell({ caller, complaints }: Place): Promise<void> {
  const answer = await caller.signed("ListStreams", "{}");
  assert.equal(assertAwsShaped(answer, "the next call"), undefined);
  assert.deepEqual(complaints.errors, [], "nothing failed inside");
}

test("subscribers whose window is zero are held at one event each", async (t) => {
  const place = await open(t, CONSUMERS);
  const { fixture, consumerArns } = place;
  const data = Buffer.alloc(MIB / 4, 7);
  for (let i = 0; i < STORED_BYTES / data.length; i += 16) {
    const batch = Array.from({ length: 16 }, (_, n) => ({ partitionKey: `key ${i + n}`, data }));
    await fixture.streams.append(STREAM, batch);
  }
  const before = usedBytes();
  const client = session(t, fixture.origin, { initialWindowSize: 0 });
  const heads: Promise<unknown>[] = [];
  for (const arn of consumerArns) {
    for (let shard = 0; shard < SHARDS; shard++) {
      const stream = await call(client, fixture.origin, "SubscribeToShard", subscribeTo(arn, shard));
      heads.push(new Promise((resolve) => stream.once("response", resolve)));
    }
  }
  await Promise.all(heads);
  assert.equal(await place.subscriptions(), CONSUMERS * SHARDS);
  // What is not held back would come in this time: each shard is read in a few milliseconds.
  await pause(1_500);
  // An event holds 512 KiB of data, a third more in base64; a whole shard would be 21 MiB.
  const subscribers = CONSUMERS * SHARDS;
  const held = await heldAtMost(2 * MIB * subscribers, before, usedBytes);
  t.diagnostic(`${Math.round(held / subscribers / 1_024)} KiB for each`);
  await isWell(place);
  client.destroy();
  await until("all have ended", async () => (await place.subscriptions()) === 0);
});

test("large answers that nobody reads are held up to a limit, and beyond it refused", async (t) => {
  const place = await open(t, 0);
  const { fixture, caller } = place;
  const data = Buffer.alloc(MIB - 16, 7);
  for (let i = 0; i < 10; i++) {
    await fixture.streams.append(STREAM, [{ partitionKey: "k", explicitHash: 0n, data }]);
  }
  const start = { StreamName: STREAM, ShardId: "0", ShardIteratorType: "TRIM_HORIZON" };
  const { body } = await caller.signed("GetShardIterator", JSON.stringify(start));
  const { ShardIterator } = JSON.parse(body.toString()) as { ShardIterator: string };
  const before = usedBytes();
  const client = session(t, fixture.origin, { initialWindowSize: 0 });
  let answeredBytes = 0;
  const outcomes = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const stream = await call(client, fixture.origin, "GetRecords", { ShardIterator });
      return await new Promise<string>((resolve) => {
        stream.once("response", (headers) => {
          if (headers[":status"] === 200) answeredBytes += Number(headers["content-length"]);
          resolve(String(headers[":status"]));
        });
        stream.once("close", () => resolve("reset"));
      });
    }),
  );
  const count = (outcome: string): number => outcomes.filter((one) => one === outcome).length;
  t.diagnostic(`${count("200")} answered, ${count("503")} told to come again, ${count("reset")} reset`);
  // 19 answers of 13.3 MiB, or more where a page is smaller. node:http2 itself resets calls when a connection holds much.
  assert.ok(count("200") >= 1 && answeredBytes <= 256 * MIB, `${answeredBytes} bytes are held`);
  assert.equal(count("200") + count("503") + count("reset"), 40);
  // The pages of those that were refused are garbage.
  await heldAtMost(400 * MIB, before, usedBytes);
  client.destroy();
  // What was held for them is free again.
  await until("answers are given again", async () => {
    return (await caller.signed("GetRecords", JSON.stringify({ ShardIterator }))).status === 200;
  });
  await isWell(place);
});

test("subscriptions that are taken back at once, or whose client goes away, leave nothing", async (t) => {
  const place = await open(t, CONSUMERS);
  const { fixture, consumerArns } = place;
  await fixture.streams.append(STREAM, [{ partitionKey: "k", data: Buffer.from("x") }]);
  const client = session(t, fixture.origin);
  for (const [i, arn] of consumerArns.entries()) {
    for (let shard = 0; shard < SHARDS; shard++) {
      const stream = await call(client, fixture.origin, "SubscribeToShard", subscribeTo(arn, shard));
      // Some before the call is read, some in the middle of the first event, some after it.
      if (i % 3 === 0) stream.close(http2.constants.NGHTTP2_CANCEL);
      else stream.once(i % 3 === 1 ? "response" : "data", () => stream.close(http2.constants.NGHTTP2_CANCEL));
    }
  }
  await until("all have ended", async () => (await place.subscriptions()) === 0);
  await isWell(place);
});

test("a client that says GOAWAY still gets what it waits for, and one that vanishes is forgotten", async (t) => {
  const place = await open(t, 2);
  const { fixture, consumerArns } = place;
  const polite = session(t, fixture.origin);
  const stream = await call(polite, fixture.origin, "SubscribeToShard", subscribeTo(consumerArns[0]!, 0));
  await new Promise((resolve) => stream.once("data", resolve));
  // RFC 9113 §6.8: streams that are open go on.
  polite.goaway();
  const pushed = new Promise((resolve) => stream.once("data", resolve));
  const from = fixture.streams.describe(STREAM).shardList[0]!.hashFrom;
  await fixture.streams.append(STREAM, [
    { partitionKey: "k", explicitHash: from, data: Buffer.from("late") },
  ]);
  await pushed;
  const rude = session(t, fixture.origin);
  const other = await call(rude, fixture.origin, "SubscribeToShard", subscribeTo(consumerArns[1]!, 1));
  await new Promise((resolve) => other.once("response", resolve));
  rude.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  rude.destroy();
  polite.destroy();
  await until("both have ended", async () => (await place.subscriptions()) === 0);
  await isWell(place);
});

test("more calls at once than a connection may have are refused one by one, not with the connection", async (t) => {
  const place = await open(t, 0);
  const { fixture } = place;
  const client = session(t, fixture.origin);
  await new Promise((resolve) => client.once("remoteSettings", resolve));
  const outcomes = await Promise.all(
    Array.from({ length: 500 }, async (_, i) => {
      const operation = i % 2 === 0 ? "DescribeStreamSummary" : "GetRecords";
      const stream = await call(client, fixture.origin, operation, { StreamName: STREAM });
      return await new Promise<string>((resolve) => {
        let status = "refused";
        stream.on("response", (headers) => {
          status = String(headers[":status"]);
        });
        stream.resume();
        stream.once("close", () => resolve(status));
      });
    }),
  );
  const served = outcomes.filter((outcome) => outcome !== "refused");
  assert.ok(served.length >= 128, `${served.length} of 500`);
  assert.deepEqual([...new Set(served)].sort(), ["200", "400"]);
  await isWell(place);
});

test("frames of any type, flags, stream and payload cost a connection at most", async (t) => {
  const place = await open(t, 0);
  const start = Buffer.concat([PREFACE, settings([])]);
  const post = headerBlock("localhost", {});
  // RFC 9113 §6.5.2: every setting, at its ends.
  const setting = fc
    .tuple(
      fc.integer({ min: 0, max: 9 }),
      fc.constantFrom(0, 1, 16_384, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
    )
    .map(([id, value]) => {
      const bytes = Buffer.alloc(6);
      bytes.writeUInt16BE(id);
      bytes.writeUInt32BE(value, 2);
      return bytes;
    });
  const stream = fc.constantFrom(0, 1, 1, 3, 5, 2, 0x7fff_ffff);
  const oddFrame = fc.oneof(
    fc.tuple(stream, fc.constantFrom(4, 5)).map(([id, flags]) => frame(FRAME.headers, flags, id, post)),
    fc.array(setting, { maxLength: 4 }).map((all) => frame(FRAME.settings, 0, 0, Buffer.concat(all))),
    fc.tuple(stream, fc.constantFrom(0, 1, 0x7fff_ffff)).map(([id, by]) => windowUpdate(id, by)),
    fc.tuple(stream, fc.uint8Array({ maxLength: 30 })).map(([id, data]) => frame(FRAME.data, 1, id, data)),
    stream.map((id) => frame(FRAME.reset, 0, id, Buffer.of(0, 0, 0, 8))),
    fc
      .tuple(fc.nat(12), fc.nat(255), stream, fc.uint8Array({ maxLength: 40 }))
      .map(([type, flags, id, payload]) => frame(type, flags, id, payload)),
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
  );
  const before = usedBytes();
  await fc.assert(
    fc.asyncProperty(fc.array(oddFrame, { maxLength: 12 }), async (frames) => {
      await new Promise<void>((resolve) => {
        const socket = connect(place.fixture.port, "127.0.0.1");
        socket.on("error", () => undefined);
        socket.on("close", () => resolve());
        socket.resume();
        socket.end(Buffer.concat([start, ...frames]));
        // After some faults node:http2 says GOAWAY and lets the connection rest until it is idle for too long.
        setTimeout(() => socket.destroy(), 50);
      });
    }),
    { numRuns: 200, interruptAfterTimeLimit: 5_000 },
  );
  await isWell(place);
  await heldAtMost(50 * MIB, before, usedBytes);
});
