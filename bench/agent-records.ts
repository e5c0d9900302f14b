/** The records that the agent's bench stores: their payloads do not compress. */
import { randomBytes } from "node:crypto";
import type { BufferRecord } from "../agent/buffer/record-buffer.ts";

export const RECORD_BYTES = 200;
export const payloads: readonly Buffer[] = Array.from({ length: 2_000 }, () => randomBytes(RECORD_BYTES));

export function recordAt(n: number): BufferRecord {
  return {
    stream: "sensors",
    partitionKey: `pi-1/sensor-${n % 20}`,
    timeUs: 1_700_000_000_000_000 + n,
    payload: payloads[n % payloads.length]!,
  };
}
