/**
 * The first record of a device that has just joined: one frame over MQTT with its new certificate, as
 * the agent's own uplink sends them. Its epoch is declared drained at once, so that nothing of it stays.
 */
import { randomBytes } from "node:crypto";
import mqtt from "mqtt";
import { encodeFrame, epochName } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import { type DeviceIdentity, tlsOptions } from "./credentials.ts";

const TIMEOUT_MS = 15_000;

/** The device has joined; records did not get through. */
export class FirstRecordError extends HeadwaterError {
  constructor(url: string, cause: unknown) {
    super("FIRST_RECORD", {
      retryable: true,
      message: `the device has joined, but its first record did not get to ${url}: ${describeError(cause)}`,
      hint: "check that this port of the gateway (8883 unless tls.mqtts says otherwise) can be reached",
      cause,
    });
  }
}

export interface FirstRecord {
  readonly url: string;
  readonly stream: string;
  readonly nowUs: number;
}

/** Resolves when the gateway has acknowledged it, which it does after its disk has it. @throws FirstRecordError */
export async function sendFirstRecord(
  identity: DeviceIdentity,
  { url, stream, nowUs }: FirstRecord,
): Promise<void> {
  const { device } = identity;
  const epoch = randomBytes(8).readBigUInt64BE() | 1n;
  const reading = { device, sensor: "agent", time: new Date(nowUs / 1_000).toISOString(), joined: true };
  const payload = Buffer.from(JSON.stringify(reading));
  const batch = encodeBatch([{ key: `${device}/agent`, timeUs: nowUs, payload }]);
  const head = { device, stream, epoch, epochStart: 0, sequence: 1n, storedUs: nowUs, recordCount: 1 };
  const frame = encodeFrame({ ...head, timeSource: "system" }, batch);
  // What the URL has must not come from elsewhere, and one failure is enough to say so.
  const client = mqtt.connect(url, {
    ...(tlsOptions(identity) as object),
    clientId: `headwater-join-${device}`,
    username: device,
    protocolVersion: 4,
    clean: true,
    reconnectPeriod: 0,
    connectTimeout: TIMEOUT_MS,
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no acknowledgement within ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
    client.once("close", () => reject(new Error("the gateway closed the connection")));
    client.once("error", reject);
  });
  late.catch(() => {});
  try {
    await Promise.race([late, new Promise<void>((resolve) => client.once("connect", () => resolve()))]);
    await Promise.race([late, client.publishAsync(topicOf(device, "frames"), frame, { qos: 1 })]);
    const drained = JSON.stringify({ epochs: [epochName(epoch)] });
    await Promise.race([late, client.publishAsync(topicOf(device, "drained"), drained, { qos: 1 })]);
  } catch (error) {
    throw new FirstRecordError(url, error);
  } finally {
    clearTimeout(timer);
    client.removeAllListeners();
    client.on("error", () => {});
    await new Promise<void>((resolve) => client.end(true, {}, () => resolve()));
  }
}
