/** SubscribeToShard by the unmodified AWS SDK, over HTTP/2 and HTTP/1.1, against a real gateway port. */
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import http from "node:http";
import test, { type TestContext } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  DeregisterStreamConsumerCommand,
  KinesisClient,
  RegisterStreamConsumerCommand,
  type StartingPosition,
  SubscribeToShardCommand,
  type SubscribeToShardEvent,
  type SubscribeToShardEventStream,
} from "@aws-sdk/client-kinesis";
import { EventStreamCodec, type Message } from "@smithy/eventstream-codec";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import fc from "fast-check";
import type { ApiOptions } from "../../../../../gateway/api/api.ts";
import { decodeCbor, encodeCbor } from "../../../../../gateway/api/kinesis/wire/cbor.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { bufferBytes, heldAtMost } from "../../../../support/held-memory.ts";
import { type Fixture, KEY, openFixture, StillClock } from "../../api-fixture.ts";
import { sign } from "../../sign.ts";

const STREAM = "readings";
const SHARD = "shardId-000000000000";

interface Place {
  readonly fixture: Fixture;
  readonly client: KinesisClient;
  readonly arn: string;
  readonly clock: StillClock;
}

async function open(
  t: TestContext,
  options: { http1?: boolean; api?: Partial<ApiOptions> } = {},
): Promise<Place> {
  const clock = new StillClock();
  const fixture = await openFixture({ clock, api: options.api ?? {} });
  const client = new KinesisClient({
    endpoint: fixture.origin,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: KEY.id, secretAccessKey: KEY.secret },
    ...(options.http1 && { requestHandler: new NodeHttpHandler() }),
  });
  t.after(async () => {
    client.destroy();
    await fixture.close();
  });
  await fixture.streams.createStream({ name: STREAM, shards: 1, retentionHours: 24 });
  const { Consumer } = await client.send(
    new RegisterStreamConsumerCommand({
      StreamARN: `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`,
      ConsumerName: "reader",
    }),
  );
  return { fixture, client, arn: Consumer!.ConsumerARN!, clock };
}

/** @throws when what the metrics tell is not so within a minute */
async function shown(metrics: Metrics, figure: RegExp): Promise<void> {
  const deadlineMs = performance.now() + 60_000;
  for (;;) {
    const text = await metrics.render();
    if (figure.test(text)) return;
    assert.ok(
      performance.now() < deadlineMs,
      `${figure} in ${text.match(/^headwater_(api|kin).*/gm)?.join("\n")}`,
    );
    await nextTurn();
  }
}

/** The events of one subscription, one by one. */
class Events {
  readonly #events: AsyncIterator<SubscribeToShardEventStream>;

  constructor(events: AsyncIterable<SubscribeToShardEventStream>) {
    this.#events = events[Symbol.asyncIterator]();
  }

  /** Undefined at the end. @throws the exception of the stream */
  async next(): Promise<SubscribeToShardEvent | undefined> {
    const { value, done } = await this.#events.next();
    if (done) return undefined;
    assert.ok(value.SubscribeToShardEvent !== undefined, JSON.stringify(value));
    return value.SubscribeToShardEvent;
  }

  /** The texts of the next `count` records, and the event in which the last of them came. */
  async records(count: number): Promise<{ texts: string[]; last: SubscribeToShardEvent }> {
    const texts: string[] = [];
    for (;;) {
      const event = await this.next();
      assert.ok(event !== undefined, `ended after ${texts.length} of ${count}`);
      for (const record of event.Records!) texts.push(Buffer.from(record.Data!).toString());
      if (texts.length >= count) return { texts, last: event };
    }
  }

  async close(): Promise<void> {
    await this.#events.return?.();
  }
}

async function subscribe(
  place: Place,
  position: StartingPosition,
  shardId = SHARD,
  arn = place.arn,
): Promise<Events> {
  const { EventStream } = await place.client.send(
    new SubscribeToShardCommand({ ConsumerARN: arn, ShardId: shardId, StartingPosition: position }),
  );
  return new Events(EventStream!);
}

async function put(place: Place, ...texts: string[]): Promise<void> {
  const entries = texts.map((text) => ({ partitionKey: "key", data: Buffer.from(text) }));
  await place.fixture.streams.append(STREAM, entries);
}

for (const http1 of [false, true]) {
  const over = http1 ? "HTTP/1.1" : "h2c";

  test(`what stands in the shard and what comes is pushed over ${over}`, async (t) => {
    const place = await open(t, { http1 });
    await put(place, "a", "b");
    const events = await subscribe(place, { Type: "TRIM_HORIZON" });
    const before = await events.records(2);
    assert.deepEqual(before.texts, ["a", "b"]);
    assert.equal(before.last.MillisBehindLatest, 0);
    assert.equal(before.last.ContinuationSequenceNumber!.length, 56);
    const [record] = before.last.Records!;
    assert.equal(record!.PartitionKey, "key");
    assert.ok(Math.abs(Date.now() - record!.ApproximateArrivalTimestamp!.getTime()) < 60_000);
    await put(place, "c");
    assert.deepEqual((await events.records(1)).texts, ["c"]);
    await events.close();
  });
}

test("with nothing new an event says so at once and every five seconds", async (t) => {
  const place = await open(t);
  await put(place, "old");
  const events = await subscribe(place, { Type: "LATEST" });
  for (let i = 0; i < 3; i++) {
    const event = await events.next();
    assert.deepEqual(event!.Records, []);
    assert.equal(event!.MillisBehindLatest, 0);
    assert.equal(event!.ContinuationSequenceNumber!.length, 56);
    place.clock.aheadMs += 5_000;
  }
  await events.close();
});

test("only the event that reaches the newest record says that nothing waits, whatever the clock says", async (t) => {
  const place = await open(t);
  // Each is an event of its own, and the clock stands still: none is older than any other.
  for (let i = 0; i < 4; i++) await put(place, "x".repeat(400_000));
  const events = await subscribe(place, { Type: "TRIM_HORIZON" });
  const behind: boolean[] = [];
  for (let seen = 0; seen < 4; ) {
    const event = await events.next();
    seen += event!.Records!.length;
    behind.push(event!.MillisBehindLatest! > 0);
  }
  assert.deepEqual(behind, [true, true, true, false]);
  await events.close();
});

test("a subscription ends in peace after five minutes, and the next goes on behind it", async (t) => {
  const place = await open(t);
  await put(place, "a");
  const first = await subscribe(place, { Type: "TRIM_HORIZON" });
  const { last } = await first.records(1);
  place.clock.aheadMs += 300_000;
  assert.equal(await first.next(), undefined);
  // Back to where the SDK's signatures are still of today.
  place.clock.aheadMs -= 200_000;
  const SequenceNumber = last.ContinuationSequenceNumber!;
  const second = await subscribe(place, { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber });
  assert.deepEqual((await second.next())!.Records, []);
  await put(place, "b");
  assert.deepEqual((await second.records(1)).texts, ["b"]);
  await second.close();
});

test("a continuation from an idle shard misses nothing, also before its first record", async (t) => {
  const place = await open(t);
  const first = await subscribe(place, { Type: "LATEST" });
  const { ContinuationSequenceNumber } = (await first.next())!;
  await first.close();
  await put(place, "a", "b");
  place.clock.aheadMs += 5_000;
  const SequenceNumber = ContinuationSequenceNumber!;
  const second = await subscribe(place, { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber });
  assert.deepEqual((await second.records(2)).texts, ["a", "b"]);
  await second.close();
});

test("within five seconds a second call is refused, later it takes over", async (t) => {
  const inUse = {
    name: "ResourceInUseException",
    message: `Another active subscription exists for this consumer: 000000000000:${STREAM}:shardId-000000000000:reader`,
  };
  const place = await open(t);
  const first = await subscribe(place, { Type: "LATEST" });
  await first.next();
  place.clock.aheadMs += 4_000;
  await assert.rejects(subscribe(place, { Type: "LATEST" }), inUse);
  place.clock.aheadMs += 1_000;
  const second = await subscribe(place, { Type: "LATEST" });
  await assert.rejects(
    async () => {
      while ((await first.next()) !== undefined);
    },
    { name: "ResourceInUseException" },
  );
  await put(place, "a");
  assert.deepEqual((await second.records(1)).texts, ["a"]);
  await second.close();
});

test("a closed shard ends with its children and without a continuation", async (t) => {
  const place = await open(t);
  await put(place, "a");
  const events = await subscribe(place, { Type: "TRIM_HORIZON" });
  await events.records(1);
  const looks = t.mock.method(place.fixture.streams, "describe");
  await place.fixture.streams.splitShard(STREAM, SHARD, 2n ** 127n);
  const last = (await events.next())!;
  assert.equal(looks.mock.callCount(), 0, "it costs the same however many shards there are");
  assert.deepEqual(
    last.ChildShards!.map(({ ShardId, ParentShards, HashKeyRange }) => [
      ShardId,
      ParentShards,
      HashKeyRange?.StartingHashKey,
    ]),
    [
      ["shardId-000000000001", [SHARD], "0"],
      ["shardId-000000000002", [SHARD], (2n ** 127n).toString()],
    ],
  );
  assert.equal(last.ContinuationSequenceNumber, undefined);
  assert.equal(await events.next(), undefined);

  place.clock.aheadMs += 5_000;
  const again = await subscribe(place, { Type: "TRIM_HORIZON" });
  const whole = (await again.next())!;
  assert.equal(whole.Records!.length, 1);
  assert.equal(whole.ChildShards!.length, 2);
  assert.equal(await again.next(), undefined);
});

test("deleting the stream or deregistering the consumer ends it with an exception", async (t) => {
  const place = await open(t);
  const first = await subscribe(place, { Type: "LATEST" });
  await first.next();
  await place.client.send(new DeregisterStreamConsumerCommand({ ConsumerARN: place.arn }));
  await assert.rejects(first.next(), { name: "ResourceNotFoundException" });
  await assert.rejects(subscribe(place, { Type: "LATEST" }), { name: "ResourceNotFoundException" });

  const reader = await place.fixture.streams.registerReader(STREAM, "other", {});
  const arn = `${place.arn.replace(/reader:\d+$/, "other")}:${Math.floor(reader.createdMs / 1000)}`;
  const second = await subscribe(place, { Type: "LATEST" }, SHARD, arn);
  await second.next();
  await place.fixture.streams.deleteStream(STREAM);
  await assert.rejects(second.next(), { name: "ResourceNotFoundException" });
});

for (const http1 of [false, true]) {
  test(`a client that leaves before its subscription begins leaves nothing, over ${http1 ? "HTTP/1.1" : "h2c"}`, async (t) => {
    const metrics = new Metrics();
    const place = await open(t, { http1, api: { metrics } });
    const { streams } = place.fixture;
    const position = streams.position.bind(streams);
    const asked = new EventEmitter();
    t.mock.method(streams, "position", async (...where: Parameters<typeof position>) => {
      asked.emit("asked");
      await once(asked, "go on");
      return await position(...where);
    });
    const abort = new AbortController();
    const isAsked = once(asked, "asked");
    const input = { ConsumerARN: place.arn, ShardId: SHARD, StartingPosition: { Type: "LATEST" } as const };
    const sent = place.client.send(new SubscribeToShardCommand(input), { abortSignal: abort.signal });
    await isAsked;
    abort.abort();
    await assert.rejects(sent, { name: "AbortError" });
    place.client.destroy();
    await shown(metrics, /^headwater_api_connections 0$/m);
    asked.emit("go on");
    await shown(metrics, /^headwater_kinesis_requests_total\{operation="SubscribeToShard",/m);
    await shown(metrics, /^headwater_kinesis_subscriptions 0$/m);
  });
}

test("closing the gateway ends subscriptions at once", async (t) => {
  const place = await open(t, { http1: true });
  const events = await subscribe(place, { Type: "LATEST" });
  await events.next();
  const ended = events.next();
  await place.fixture.api.close();
  // In peace: one that does not end at once is cut off a while later, which is an error over HTTP/1.1.
  assert.equal(await ended, undefined);
});

test("to a client that does not read, no more than an event is kept, and nothing is lost", async (t) => {
  const place = await open(t);
  const count = 400;
  const one = Buffer.alloc(64 * 1024, "x");
  for (let i = 0; i < count; i += 20) {
    const entries = Array.from({ length: 20 }, (_, k) => {
      const data = Buffer.from(one);
      data.writeUInt32BE(i + k);
      return { partitionKey: "key", data };
    });
    await place.fixture.streams.append(STREAM, entries);
  }
  const body = JSON.stringify({
    ConsumerARN: place.arn,
    ShardId: SHARD,
    StartingPosition: { Type: "TRIM_HORIZON" },
  });
  const { host, ...headers } = await sign({
    headers: {
      host: new URL(place.fixture.origin).host,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.SubscribeToShard",
    },
    body,
  });
  const read = new Promise<number[]>((resolve, reject) => {
    const request = http.request(
      place.fixture.origin,
      { method: "POST", headers: { ...headers, host } },
      (answer) => {
        answer.pause();
        const before = bufferBytes();
        // Time enough to push all of it, 33 MiB, were it not held back.
        setTimeout(() => {
          heldAtMost(12 * 1_048_576, before).then(readOn, reject);
        }, 500);
        const readOn = (): void => {
          const numbers: number[] = [];
          let kept = Buffer.alloc(0);
          answer.on("data", (chunk: Buffer) => {
            kept = Buffer.concat([kept, chunk]);
            while (kept.length >= 4 && kept.length >= kept.readUInt32BE(0)) {
              const bytes = kept.readUInt32BE(0);
              const payload = kept.toString("latin1", 12 + kept.readUInt32BE(4), bytes - 4);
              kept = kept.subarray(bytes);
              const { Records: records = [] } = JSON.parse(payload) as { Records?: { Data: string }[] };
              for (const { Data } of records) numbers.push(Buffer.from(Data, "base64").readUInt32BE(0));
              if (numbers.length >= count) {
                request.destroy();
                resolve(numbers);
              }
            }
          });
          answer.resume();
        };
      },
    );
    request.on("error", reject);
    request.end(body);
  });
  assert.deepEqual(
    await read,
    Array.from({ length: count }, (_, i) => i),
  );
});

test("whatever position, shard or consumer is asked for, the answer is AWS's or events", async (t) => {
  const place = await open(t);
  await put(place, "a");
  const text = fc.oneof(fc.string({ maxLength: 80 }), fc.constant(SHARD), fc.constant(place.arn));
  const wild = fc.oneof(text, fc.integer(), fc.double(), fc.constant(null), fc.jsonValue({ maxDepth: 2 }));
  const types = ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"];
  const request = fc.record(
    {
      ConsumerARN: fc.oneof({ weight: 3, arbitrary: fc.constant(place.arn) }, { weight: 1, arbitrary: wild }),
      ShardId: fc.oneof({ weight: 3, arbitrary: fc.constant(SHARD) }, { weight: 1, arbitrary: wild }),
      StartingPosition: fc.oneof(
        wild,
        fc.record(
          {
            Type: fc.oneof(fc.constantFrom(...types), wild),
            SequenceNumber: fc.oneof(fc.bigInt({ min: 0n, max: 10n ** 130n }).map(String), wild),
            Timestamp: wild,
          },
          { requiredKeys: [] },
        ),
      ),
    },
    { requiredKeys: [] },
  );
  const host = new URL(place.fixture.origin).host;
  const call = async (input: unknown): Promise<void> => {
    place.clock.aheadMs += 5_000;
    const body = JSON.stringify(input);
    const headers = await sign({
      headers: {
        host,
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "Kinesis_20131202.SubscribeToShard",
      },
      body,
      date: new Date(place.clock.nowUs() / 1_000),
    });
    delete headers.host;
    const leave = new AbortController();
    const { signal } = leave;
    const answer = await fetch(place.fixture.origin, { method: "POST", headers, body, signal });
    if (answer.status === 200) return leave.abort();
    const { __type: type } = (await answer.json()) as { __type: string };
    assert.equal(answer.status, 400, type);
    assert.match(type, /^[A-Za-z]+Exception$/);
  };
  await fc.assert(fc.asyncProperty(request, call), { numRuns: 150, seed: 1 });
  assert.equal((await fetch(`${place.fixture.origin}/healthz`)).status, 200);
});

for (const cbor of [false, true]) {
  test(`a subscriber that asks in ${cbor ? "CBOR" : "JSON"} is answered in it`, async (t) => {
    const place = await open(t);
    await put(place, "a");
    const contentType = cbor ? "application/x-amz-cbor-1.1" : "application/x-amz-json-1.1";
    const input = { ConsumerARN: place.arn, ShardId: SHARD, StartingPosition: { Type: "TRIM_HORIZON" } };
    const body = cbor ? encodeCbor(input) : Buffer.from(JSON.stringify(input));
    const host = new URL(place.fixture.origin).host;
    const headers = await sign({
      headers: { host, "content-type": contentType, "x-amz-target": "Kinesis_20131202.SubscribeToShard" },
      body,
    });
    delete headers.host;
    const answer = await fetch(place.fixture.origin, { method: "POST", headers, body });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("content-type"), "application/vnd.amazon.eventstream");
    const codec = new EventStreamCodec(
      (bytes) => Buffer.from(bytes as Uint8Array).toString("utf8"),
      (text) => Buffer.from(text),
    );
    const messages: Message[] = [];
    let kept = Buffer.alloc(0);
    for await (const chunk of answer.body!) {
      kept = Buffer.concat([kept, chunk]);
      while (kept.length >= 4 && kept.length >= kept.readUInt32BE(0)) {
        const bytes = kept.readUInt32BE(0);
        messages.push(codec.decode(kept.subarray(0, bytes)));
        kept = kept.subarray(bytes);
      }
      if (messages.length >= 2) break;
    }
    const types = messages.map(({ headers: of }) => [of[":event-type"]?.value, of[":content-type"]?.value]);
    assert.deepEqual(types, [
      ["initial-response", contentType],
      ["SubscribeToShardEvent", contentType],
    ]);
    const payload = Buffer.from(messages[1]!.body);
    const event = (cbor ? decodeCbor(payload) : JSON.parse(payload.toString())) as {
      Records: { Data: Buffer | string; PartitionKey: string }[];
    };
    const data = event.Records[0]!.Data;
    assert.equal(typeof data === "string" ? Buffer.from(data, "base64").toString() : data.toString(), "a");
  });
}
