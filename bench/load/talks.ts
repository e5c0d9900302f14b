/** What is said on a connection: HTTP/1.1, Redis, NATS, MQTT. Each knows just enough to count answers and to see a refusal. */
import { encodeFrame, type FrameHead } from "../../protocol/frame.ts";
import { encodeBatch } from "../../protocol/record-batch.ts";
import { topicOf } from "../../protocol/topics.ts";
import { crc32c } from "../../runtime/crc32c.ts";
import { AnswerCheck } from "./answer-check.ts";
import type { Talk } from "./drive.ts";
import { reading } from "./kinesis-requests.ts";

/**
 * @param messages whole requests, sent in turn from `start` on
 * @param expected how each answer's body begins
 */
export function httpTalk(messages: readonly Buffer[], start: number, expected?: RegExp): Talk {
  const check = new AnswerCheck(expected);
  const ended = (): number => {
    check.end();
    return 1;
  };
  let turn = start;
  let head = "";
  let bodyLeft = 0;
  return {
    next: () => messages[turn++ % messages.length]!,
    taken(chunk) {
      let done = 0;
      for (let at = 0; at < chunk.length; ) {
        if (bodyLeft === 0) {
          // A head is short: as text it is found even where two chunks share it.
          const text = head + chunk.toString("latin1", at, Math.min(chunk.length, at + 4_096));
          const end = text.indexOf("\r\n\r\n");
          if (end < 0) {
            head = text;
            return done;
          }
          at += end + 4 - head.length;
          head = "";
          bodyLeft = Number(/content-length: *(\d+)/i.exec(text.slice(0, end))?.[1] ?? Number.NaN);
          if (!text.startsWith("HTTP/1.1 200") || Number.isNaN(bodyLeft))
            throw new Error(`refused: ${text.slice(0, 400)}`);
          if (bodyLeft === 0) done += ended();
          continue;
        }
        const passed = Math.min(bodyLeft, chunk.length - at);
        check.add(chunk, at, at + passed);
        bodyLeft -= passed;
        at += passed;
        if (bodyLeft === 0) done += ended();
      }
      return done;
    },
  };
}

/** Counts the ends of replies; a reply is `perReply` lines. @param refusal what begins an error, at a line's start */
function lineTalk(next: () => Buffer, perReply: number, refusal: RegExp): Talk {
  let lines = 0;
  return {
    next,
    taken(chunk) {
      if (refusal.test(chunk.toString("latin1", 0, 200)))
        throw new Error(`refused: ${chunk.toString("latin1", 0, 200)}`);
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines++;
      const done = Math.floor(lines / perReply);
      lines -= done * perReply;
      return done;
    },
  };
}

export function redisAddTalk(key: string, recordBytes: number): Talk {
  const data = reading(recordBytes);
  const add = Buffer.from(
    `*5\r\n$4\r\nXADD\r\n$${key.length}\r\n${key}\r\n$1\r\n*\r\n$1\r\nd\r\n$${data.length}\r\n${data}\r\n`,
  );
  return lineTalk(() => add, 2, /^-/);
}

/** Reads pages of `count` entries whose ids all have `ID_DIGITS` digits, so that a page's length is known. */
const ID_DIGITS = 9;
export const redisIdOf = (index: number): string => String(100_000_000 + index).concat("-0");

export function redisRangeTalk(
  key: string,
  count: number,
  pages: number,
  recordBytes: number,
  start: number,
): Talk {
  const idBytes = ID_DIGITS + 2;
  const perEntry =
    4 + `$${idBytes}\r\n`.length + idBytes + 2 + 4 + 7 + `$${recordBytes}\r\n`.length + recordBytes + 2;
  const pageBytes = `*${count}\r\n`.length + count * perEntry;
  let turn = start;
  let heard = 0;
  return {
    next() {
      const from = redisIdOf((turn++ % pages) * count);
      return Buffer.from(
        `*6\r\n$6\r\nXRANGE\r\n$${key.length}\r\n${key}\r\n$${from.length}\r\n${from}\r\n$1\r\n+\r\n$5\r\nCOUNT\r\n$${String(count).length}\r\n${count}\r\n`,
      );
    },
    taken(chunk) {
      if (heard === 0 && chunk[0] !== 0x2a) throw new Error(`refused: ${chunk.toString("latin1", 0, 200)}`);
      heard += chunk.length;
      if (heard < pageBytes) return 0;
      if (heard > pageBytes) throw new Error("a page was longer than its entries");
      heard = 0;
      return 1;
    },
  };
}

/** Publishes that JetStream acknowledges one by one. */
export function jetStreamTalk(subject: string, connection: number, recordBytes: number): Talk {
  const data = reading(recordBytes);
  const publish = Buffer.from(`PUB ${subject} _INBOX.${connection}.a ${data.length}\r\n${data}\r\n`);
  const hello = Buffer.from(`CONNECT {"verbose":false}\r\nSUB _INBOX.${connection}.* 1\r\n`);
  // INFO comes first and has no fixed length, so lines are counted from the first acknowledgement on.
  let greeting: string | undefined = "";
  const acknowledged = lineTalk(() => publish, 2, /-ERR|"error"/);
  let first = true;
  return {
    next() {
      if (!first) return publish;
      first = false;
      return Buffer.concat([hello, publish]);
    },
    taken(chunk) {
      if (greeting === undefined) return acknowledged.taken(chunk);
      greeting += chunk.toString("latin1");
      const at = greeting.indexOf("MSG ");
      if (at < 0) return 0;
      const rest = Buffer.from(greeting.slice(at), "latin1");
      greeting = undefined;
      return acknowledged.taken(rest);
    },
  };
}

export const connectPacket = (clientId: string): Buffer => {
  const id = Buffer.from(clientId);
  // MQTT 3.1.1 §3.1: clean session, no keep-alive.
  const body = Buffer.concat([
    Buffer.from([0, 4, 77, 81, 84, 84, 4, 2, 0, 0, id.length >> 8, id.length & 255]),
    id,
  ]);
  return Buffer.concat([Buffer.from([0x10, body.length]), body]);
};

/** A QoS 1 publish, and where its packet id stands. */
export function publishPacket(topic: string, payload: Buffer): { bytes: Buffer; idAt: number } {
  const topicBytes = Buffer.from(topic);
  const remaining = 2 + topicBytes.length + 2 + payload.length;
  const head = [0x32];
  for (let left = remaining; ; ) {
    const digit = left % 128;
    left = Math.floor(left / 128);
    head.push(left > 0 ? digit | 0x80 : digit);
    if (left === 0) break;
  }
  head.push(topicBytes.length >> 8, topicBytes.length & 255);
  const bytes = Buffer.concat([Buffer.from(head), topicBytes, Buffer.alloc(2), payload]);
  return { bytes, idAt: head.length + topicBytes.length };
}

/** Each answer is a PUBACK of four bytes. */
function pubackCounter(): (chunk: Buffer) => number {
  let left = 0;
  return (chunk) => {
    if (left === 0 && chunk[0] !== 0x40) throw new Error(`refused: packet type ${chunk[0]! >> 4}`);
    left += chunk.length;
    const done = left >> 2;
    left &= 3;
    return done;
  };
}

/** A plain sensor. @param window as it is driven: a packet is written to again once it was acknowledged */
export function sensorTalk(nth: number, window: number, recordBytes: number): Talk {
  const packets = Array.from({ length: window }, () =>
    publishPacket(`plant/sensor-${nth}`, reading(recordBytes)),
  );
  let turn = 0;
  return {
    greeting: { bytes: connectPacket(`bench-sensor-${nth}`), answerBytes: 4 },
    next() {
      const { bytes, idAt } = packets[turn % window]!;
      bytes.writeUInt16BE((turn++ % 65_535) + 1, idAt);
      return bytes;
    },
    taken: pubackCounter(),
  };
}

/**
 * An agent that sends frames. Between two frames only sequence and checksum differ; as a checksum is
 * linear, what each byte of the sequence adds to it is looked up instead of reading the frame again.
 */
export function agentTalk(
  nth: number,
  window: number,
  stream: string,
  records: number,
  recordBytes: number,
): Talk {
  const device = `bench-agent-${nth}`;
  const head: FrameHead = {
    device,
    stream,
    epoch: BigInt(Date.now()) * 1_000n + BigInt(nth),
    epochStart: 1,
    sequence: 0n,
    storedUs: Date.now() * 1_000,
    recordCount: records,
    timeSource: "system",
  };
  const batch = encodeBatch(
    Array.from({ length: records }, (_, i) => ({
      key: `${device}/sensor-${i % 10}`,
      timeUs: Date.now() * 1_000 + i,
      payload: reading(recordBytes),
    })),
  );
  const frame = encodeFrame(head, batch);
  const base = crc32c(frame, 12);
  const sequenceAt = 24;
  const added = [5, 6, 7].map((byte) =>
    Uint32Array.from({ length: 256 }, (_, value) => {
      frame[sequenceAt + byte] = value;
      const crc = crc32c(frame, 12);
      frame[sequenceAt + byte] = 0;
      return (crc ^ base) >>> 0;
    }),
  );
  const packets = Array.from({ length: window }, () => publishPacket(topicOf(device, "frames"), frame));
  let turn = 0;
  return {
    greeting: { bytes: connectPacket(device), answerBytes: 4 },
    next() {
      const { bytes, idAt } = packets[turn % window]!;
      const sequence = turn + 1;
      const at = idAt + 2;
      bytes.writeUInt16BE((turn++ % 65_535) + 1, idAt);
      bytes.writeUInt32BE(sequence, at + sequenceAt + 4);
      const crc =
        base ^
        added[0]![(sequence >> 16) & 255]! ^
        added[1]![(sequence >> 8) & 255]! ^
        added[2]![sequence & 255]!;
      bytes.writeUInt32BE(crc >>> 0, at + 8);
      return bytes;
    },
    taken: pubackCounter(),
  };
}
