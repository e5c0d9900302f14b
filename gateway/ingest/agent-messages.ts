/** The JSON that agents publish beside frames, checked before it is believed. */
import { z } from "zod";
import type { DrainedMessage, StatusMessage, TimeRequest } from "../../protocol/topics.ts";

const MAX_MESSAGE_BYTES = 65_536;
const count = z.number().min(0);
const text = z.string().max(500);

const bufferStatus = z.object({
  waitingRecords: count,
  waitingBytes: count,
  maxBytes: count,
  oldestAgeMs: count,
  droppedRecords: count,
});

const statusMessage = z.object({
  version: text,
  buffer: bufferStatus,
  footage: bufferStatus.optional(),
  sources: z
    .array(
      z.object({
        name: text,
        type: text,
        state: z.enum(["running", "waiting", "stalled", "stopped"]),
        records: count,
        rejected: count,
        lastError: text.optional(),
      }),
    )
    .max(200),
  residentBytes: count,
});

const drainedMessage = z.object({ epochs: z.array(z.string().regex(/^[0-9a-f]{16}$/)).max(1_000) });

const timeRequest = z.object({ id: z.number().int().min(0) });

/** Undefined for anything that is not a question for the time. */
export function parseTimeRequest(payload: Uint8Array): TimeRequest | undefined {
  return parse(payload, timeRequest) as TimeRequest | undefined;
}

/** Undefined for anything that is not a status message. */
export function parseStatus(payload: Uint8Array): StatusMessage | undefined {
  return parse(payload, statusMessage) as StatusMessage | undefined;
}

/** Undefined for anything that is not a drained message. */
export function parseDrained(payload: Uint8Array): DrainedMessage | undefined {
  return parse(payload, drainedMessage);
}

function parse<T extends z.ZodType>(payload: Uint8Array, schema: T): z.infer<T> | undefined {
  if (payload.length > MAX_MESSAGE_BYTES) return undefined;
  try {
    return schema.safeParse(JSON.parse(Buffer.from(payload).toString("utf8"))).data;
  } catch {
    return undefined;
  }
}
