/**
 * The way of a record from its publishing to the push of an enhanced-fan-out subscription: frames of
 * ten records at a steady rate over MQTT, each record with the time at which it was sent, and one
 * SubscribeToShard over HTTP/2 that reads those times. Both in this process, so by one clock.
 */
import { randomBytes } from "node:crypto";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { encodeFrame } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";
import { percentile } from "../floor.ts";
import type { Driven, DriveOptions } from "./drive.ts";
import { call, reading, signed } from "./kinesis-requests.ts";
import type { Load } from "./load.ts";
import { connectPacket, publishPacket } from "./talks.ts";

const RECORDS_PER_FRAME = 10;
const DEVICE = "bench-pusher";
const CONSUMER = "bench-push";

type PushLoad = Load & { readonly kind: "push" };

export async function drivePush(load: PushLoad, options: DriveOptions): Promise<Driven> {
  const waits: number[] = [];
  let sinceMs = Number.POSITIVE_INFINITY;
  const session = connectHttp2(`http://${options.host}:${load.endpoint.port}`);
  const socket = connect(options.port, options.host).setNoDelay(true);
  try {
    const { ended: failed } = await subscribe(session, load, (sentMs) => {
      if (sentMs >= sinceMs) waits.push(performance.now() - sentMs);
    });
    const publishing = publishSteadily(socket, load, failed);
    publishing.catch(() => {});
    const wait = (ms: number) =>
      Promise.race([new Promise((resolve) => setTimeout(resolve, ms)), failed, publishing]);
    await wait(options.warmMs);
    options.onWarm();
    sinceMs = performance.now();
    await wait(options.measureMs);
    const seconds = (performance.now() - sinceMs) / 1000;
    if (waits.length === 0) throw new Error("nothing was pushed");
    return { requests: waits.length, seconds, p50Ms: percentile(waits, 0.5), p99Ms: percentile(waits, 0.99) };
  } finally {
    socket.destroy();
    session.destroy();
  }
}

/** Never resolves; rejects when the connection ends or falls far behind. */
function publishSteadily(socket: Socket, load: PushLoad, ended: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => {
    let sequence = 0;
    let acknowledgedBytes = 0;
    let began = 0;
    const epoch = randomBytes(8).readBigUInt64BE();
    const topic = topicOf(DEVICE, "frames");
    const payloads = Array.from({ length: RECORDS_PER_FRAME }, () => reading(load.recordBytes));
    const send = (): void => {
      const now = performance.now();
      const due = ((now - began) / 1000) * (load.recordsPerSecond / RECORDS_PER_FRAME);
      while (sequence < due) {
        for (const payload of payloads) payload.writeDoubleBE(now, 0);
        const timeUs = Date.now() * 1_000;
        const records = payloads.map((payload, i) => ({ key: `${DEVICE}/sensor-${i}`, timeUs, payload }));
        const head = {
          device: DEVICE,
          stream: load.stream,
          epoch,
          epochStart: 1,
          sequence: BigInt(++sequence),
          storedUs: timeUs,
          recordCount: records.length,
          timeSource: "system",
        } as const;
        const { bytes, idAt } = publishPacket(topic, encodeFrame(head, encodeBatch(records)));
        bytes.writeUInt16BE((sequence % 65_535) + 1, idAt);
        socket.write(bytes);
      }
      // A PUBACK has four bytes; the first answer, CONNACK, as well.
      if (sequence - acknowledgedBytes / 4 > 10_000) reject(new Error("publishes are not acknowledged"));
      else if (!socket.destroyed) setTimeout(send, 1);
    };
    ended.catch(reject);
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the gateway closed the connection")));
    socket.on("data", (chunk) => {
      if (acknowledgedBytes === 0) {
        began = performance.now();
        send();
      }
      acknowledgedBytes += chunk.length;
    });
    socket.write(connectPacket(DEVICE));
  });
}

/** Resolves once the subscription stands, with what rejects when it ends. */
async function subscribe(
  session: ClientHttp2Session,
  load: PushLoad,
  onRecord: (sentMs: number) => void,
): Promise<{ readonly ended: Promise<never> }> {
  const { endpoint } = load;
  const { StreamDescriptionSummary: stream } = await call<{
    StreamDescriptionSummary: { StreamARN: string };
  }>(endpoint, "DescribeStreamSummary", { StreamName: load.stream });
  const named = { StreamARN: stream.StreamARN, ConsumerName: CONSUMER };
  const { Consumer } = await call<{ Consumer: { ConsumerARN: string } }>(
    endpoint,
    "RegisterStreamConsumer",
    named,
  );
  for (let state = ""; state !== "ACTIVE"; ) {
    const found = await call<{ ConsumerDescription: { ConsumerStatus: string } }>(
      endpoint,
      "DescribeStreamConsumer",
      named,
    );
    state = found.ConsumerDescription.ConsumerStatus;
  }
  const input = {
    ConsumerARN: Consumer.ConsumerARN,
    ShardId: "shardId-000000000000",
    StartingPosition: { Type: "LATEST" },
  };
  const { headers, body } = signed(endpoint, "SubscribeToShard", Buffer.from(JSON.stringify(input)));
  const { host, ...rest } = headers;
  const subscription = session.request({ ...rest, ":method": "POST", ":path": "/", ":authority": host });
  subscription.end(body);
  const ended = new Promise<never>((_, reject) => {
    session.on("error", reject);
    subscription.on("error", reject);
    subscription.on("end", () => reject(new Error("the subscription ended")));
  });
  ended.catch(() => {});
  const status = await Promise.race([
    new Promise<number>((resolve) =>
      subscription.once("response", (answer) => resolve(Number(answer[":status"]))),
    ),
    ended,
  ]);
  if (status !== 200) throw new Error(`SubscribeToShard answered ${status}`);
  let kept: Buffer = Buffer.alloc(0);
  subscription.on("data", (chunk: Buffer) => {
    kept = takeEvents(kept.length === 0 ? chunk : Buffer.concat([kept, chunk]), onRecord);
  });
  return { ended };
}

/** Of whole messages of the event stream, the records' times; returns what is left of a message. */
function takeEvents(bytes: Buffer, onRecord: (sentMs: number) => void): Buffer {
  let at = 0;
  while (bytes.length - at >= 12 && bytes.length - at >= bytes.readUInt32BE(at)) {
    const size = bytes.readUInt32BE(at);
    const payloadAt = at + 12 + bytes.readUInt32BE(at + 4);
    const event = JSON.parse(bytes.toString("utf8", payloadAt, at + size - 4)) as {
      Records?: ReadonlyArray<{ Data: string }>;
    };
    // Twelve characters of base64 are nine bytes; the time is the first eight.
    for (const { Data } of event.Records ?? []) {
      onRecord(Buffer.from(Data.slice(0, 12), "base64").readDoubleBE(0));
    }
    at += size;
  }
  return bytes.subarray(at);
}
