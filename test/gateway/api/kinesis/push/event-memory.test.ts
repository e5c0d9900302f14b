/**
 * Events of SubscribeToShard whose memory is used again: what each subscriber gets is what was put, to the
 * byte, whoever else is given the same events, reads slowly, or goes away in the middle of one.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import { join } from "node:path";
import type { Readable } from "node:stream";
import test, { type TestContext } from "node:test";
import { EventStreamCodec } from "@smithy/eventstream-codec";
import { answerMemory } from "../../../../../gateway/api/answers/answer-memory.ts";
import { JoiningRig } from "../../../identity/joining-rig.ts";
import { KEY } from "../../api-fixture.ts";
import { call, sign } from "../../sign.ts";

const STREAM = "events";
const STREAM_ARN = `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`;
const SHARD = "shardId-000000000000";
/** Events of some hundred bytes, and such of many frames of HTTP/2 and many writes of a socket. */
const SIZES = [10, 300, 3_000, 20_000, 70_000, 400_000];
const RECORDS = 240;
const MAX_IDLE_BYTES = 32 * 1_048_576;

/** Of each record, what it says of itself and what fills it up. */
function dataOf(index: number): Buffer {
  const bytes = SIZES[(index * 7) % SIZES.length]!;
  const hash = createHash("shake256", { outputLength: bytes }).update(String(index));
  return Buffer.concat([Buffer.from(`${index} `), hash.digest()]);
}

const codec = new EventStreamCodec(
  (bytes) => Buffer.from(bytes).toString("utf8"),
  (text) => Buffer.from(text),
);

/** What comes of one subscription; whole messages are checked and forgotten. */
class Subscriber {
  seen = 0;
  #kept: Buffer = Buffer.alloc(0);

  /** @throws AssertionError, and what the codec says of a message whose checksums are wrong */
  take(chunk: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, chunk]);
    while (this.#kept.length >= 4 && this.#kept.length >= this.#kept.readUInt32BE(0)) {
      const bytes = this.#kept.readUInt32BE(0);
      const { body } = codec.decode(this.#kept.subarray(0, bytes));
      this.#kept = this.#kept.subarray(bytes);
      const { Records: records = [] } = JSON.parse(Buffer.from(body).toString()) as {
        Records?: readonly { readonly Data: string }[];
      };
      for (const { Data } of records) {
        assert.ok(Buffer.from(Data, "base64").equals(dataOf(this.seen)), `record ${this.seen}`);
        this.seen++;
      }
    }
  }
}

type Subscribe = (consumerArn: string, from: object) => Promise<Readable>;

interface Opened {
  readonly origin: string;
  readonly ways: Readonly<Record<string, Subscribe>>;
}

async function open(t: TestContext): Promise<Opened> {
  const rig = await JoiningRig.start(t, "", `accessKeys: [{id: ${KEY.id}, secret: ${KEY.secret}}]`);
  const origin = rig.gateway.addresses.http;
  await ask(origin, "CreateStream", { StreamName: STREAM, ShardCount: 1 });
  const ca = await readFile(join(rig.dir, "gateway", "identity", "ca-certificate.pem"), "utf8");
  const port = Number(new URL(origin).port);
  const tlsPort = rig.port("https");
  return {
    origin,
    ways: {
      "HTTP/1.1": overHttp1(t, port),
      "HTTP/1.1 over TLS": overHttp1(t, tlsPort, ca),
      "HTTP/2": overHttp2(t, port),
      "HTTP/2 over TLS": overHttp2(t, tlsPort, ca),
    },
  };
}

async function ask<T>(origin: string, target: string, input: object): Promise<T> {
  const answer = await call(origin, target, JSON.stringify(input));
  assert.equal(answer.status, 200, answer.message);
  return answer.json as T;
}

async function signedSubscribe(authority: string, consumerArn: string, from: object) {
  const body = JSON.stringify({ ConsumerARN: consumerArn, ShardId: SHARD, StartingPosition: from });
  const headers = await sign({
    headers: {
      host: authority,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.SubscribeToShard",
    },
    body,
  });
  return { headers, body };
}

function overHttp1(t: TestContext, port: number, ca?: string): Subscribe {
  return async (consumerArn, from) => {
    const { headers, body } = await signedSubscribe(`localhost:${port}`, consumerArn, from);
    return await new Promise((resolve, reject) => {
      const options = { port, host: "localhost", method: "POST", headers, agent: false as const };
      const request = ca === undefined ? http.request(options) : https.request({ ...options, ca });
      t.after(() => request.destroy());
      request.on("error", reject);
      request.on("response", (answer) => {
        assert.equal(answer.statusCode, 200);
        resolve(answer);
      });
      request.end(body);
    });
  };
}

/** One connection; what a subscriber does not read stays at the gateway, but for the 64 KiB of its window. */
function overHttp2(t: TestContext, port: number, ca?: string): Subscribe {
  const authority = `localhost:${port}`;
  const origin = `${ca === undefined ? "http" : "https"}://${authority}`;
  const session = http2.connect(origin, ca === undefined ? {} : { ca });
  session.on("error", () => {});
  session.on("connect", () => session.setLocalWindowSize(2 ** 26));
  t.after(() => session.destroy());
  return async (consumerArn, from) => {
    const { headers, body } = await signedSubscribe(authority, consumerArn, from);
    const { host: _, ...rest } = headers;
    const stream = session.request({ ":method": "POST", ":path": "/", ...rest });
    stream.end(body);
    return await new Promise((resolve, reject) => {
      stream.once("error", reject);
      stream.once("response", (heard) => {
        assert.equal(heard[":status"], 200);
        resolve(stream);
      });
    });
  };
}

async function register(origin: string, name: string): Promise<string> {
  const input = { StreamARN: STREAM_ARN, ConsumerName: name };
  const { Consumer } = await ask<{ Consumer: { ConsumerARN: string } }>(
    origin,
    "RegisterStreamConsumer",
    input,
  );
  return Consumer.ConsumerARN;
}

/** Puts all records, some at a time, so that there is something new while others are still being read. */
async function putAll(origin: string): Promise<void> {
  for (let at = 0; at < RECORDS; ) {
    const count = Math.min(1 + (at % 5), RECORDS - at);
    const records = Array.from({ length: count }, (_, i) => ({
      Data: dataOf(at + i).toString("base64"),
      PartitionKey: "key",
    }));
    await ask(origin, "PutRecords", { StreamName: STREAM, Records: records });
    at += count;
  }
}

/** Reads until it has seen so many records; a slow one lets others go on after each chunk. */
async function read(events: Readable, until: number, pauseTurns: number): Promise<void> {
  const subscriber = new Subscriber();
  for await (const chunk of events) {
    subscriber.take(chunk as Buffer);
    if (subscriber.seen >= until) break;
    for (let i = 0; i < pauseTurns; i++) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(subscriber.seen >= until, `${subscriber.seen} of ${until} records came`);
}

test("subscribers over each way get what was put, fast or slow, to the end or not", async (t) => {
  const { origin, ways } = await open(t);
  const before = answerMemory.idleBytes;
  const readings: Promise<void>[] = [];
  for (const [way, subscribe] of Object.entries(ways)) {
    const name = way.replaceAll(/\W/g, "-");
    const begin = async (suffix: string, until: number, pauseTurns: number): Promise<void> => {
      const consumer = await register(origin, `${name}-${suffix}`);
      await read(await subscribe(consumer, { Type: "TRIM_HORIZON" }), until, pauseTurns);
    };
    readings.push(begin("fast", RECORDS, 0), begin("slow", RECORDS, 15), begin("cut", RECORDS / 3, 3));
  }
  await putAll(origin);
  await Promise.all(readings);
  const { idleBytes } = answerMemory;
  assert.ok(idleBytes > before && idleBytes <= MAX_IDLE_BYTES, `${before}, then ${idleBytes} bytes are idle`);
});
