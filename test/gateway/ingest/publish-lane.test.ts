import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import type { Client } from "aedes";
import fc from "fast-check";
import mqttPacket, { type Packet } from "mqtt-packet";
import { Destinations } from "../../../gateway/ingest/destinations.ts";
import {
  type Answers,
  NO_PACKET_ID,
  newSession,
  type Publish,
  payloadOf,
} from "../../../gateway/ingest/publish.ts";
import { PublishLane } from "../../../gateway/ingest/publish-lane.ts";
import { PublishMemory } from "../../../gateway/ingest/publish-memory.ts";
import { TopicRules } from "../../../gateway/ingest/topic-rules.ts";

const MAX_PACKET_BYTES = 1_048_576;

type Seen = [kind: string, topic: string, payload: string, messageId: number | undefined, flags: string];

const seen = (packet: Packet): Seen => {
  if (packet.cmd !== "publish") return [packet.cmd, "", "", undefined, ""];
  const { topic, payload, messageId, qos, dup } = packet;
  return ["publish", topic, Buffer.from(payload).toString("hex"), messageId, `${qos} ${dup}`];
};

const taken = (publish: Publish): Seen => {
  const { destination, packetId, qos, dup } = publish;
  const id = packetId === NO_PACKET_ID ? undefined : packetId;
  return ["publish", destination.topic, payloadOf(publish).toString("hex"), id, `${qos} ${dup}`];
};

/** The library's parser, its client's fields that the lane goes by, and a socket that keeps what is written. */
function stand(take: (publish: Publish, answers: Answers) => void, packetsAtOnce?: number) {
  const parser = mqttPacket.parser();
  const library: Seen[] = [];
  const written: string[] = [];
  let failed = false;
  parser.on("packet", (packet) => library.push(seen(packet)));
  parser.on("error", () => {
    failed = true;
  });
  const conn = Object.assign(new EventEmitter(), {
    destroyed: false,
    writableNeedDrain: false,
    isPaused: false,
    takes: true,
    write(text: string) {
      written.push(text);
      return conn.takes;
    },
    pause: () => {
      conn.isPaused = true;
    },
    resume: () => {
      conn.isPaused = false;
    },
  });
  const client = Object.assign(new EventEmitter(), {
    id: "a",
    _parser: Object.assign(parser, { _queue: [] as unknown[] | null }),
    connackSent: true,
    closed: false,
    _keepaliveInterval: 0,
    _parsingBatch: 1,
    _nextBatch: () => {},
    waitForDrain: (done: () => void) => conn.once("drain", done),
    conn,
  });
  const lane = new PublishLane({
    destinations: new Destinations(new TopicRules([])),
    maxPacketBytes: MAX_PACKET_BYTES,
    take: (_session, publish, answers) => take(publish, answers),
    tooLarge: () => {
      client.closed = true;
      failed = true;
    },
    memory: new PublishMemory(),
    tooSlow: () => assert.fail("held up nobody"),
    ...(packetsAtOnce !== undefined && { packetsAtOnce }),
  });
  const open = () => {
    const connection = lane.attach(client as unknown as Client);
    assert.ok(connection !== undefined);
    // CONNECT was answered.
    client._parser._queue = null;
    connection.session = newSession(client as unknown as Client, "a");
    return {
      /** In memory that is another's at once. */
      read(chunk: Buffer): void {
        const copy = Buffer.from(chunk);
        connection.read(copy);
        copy.fill(0x30);
      },
    };
  };
  return { parser, client, conn, library, written, open, failed: () => failed };
}

const PUBLISH = { cmd: "publish", topic: "a", payload: "1", qos: 1, dup: false, retain: false } as const;
const bytesOf = (messageId: number, payload: string | Buffer = "1"): Buffer =>
  mqttPacket.generate({ ...PUBLISH, messageId, payload });
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const publish = fc.record({
  cmd: fc.constant("publish" as const),
  topic: fc.constantFrom("a/b", "plant/1/temperature", "ü/☃", "x".repeat(300)),
  payload: fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  dup: fc.boolean(),
  retain: fc.boolean(),
  messageId: fc.integer({ min: 1, max: 65_535 }),
});
/** Its length byte looks like the head of a publish. */
const subscribe = {
  cmd: "subscribe" as const,
  messageId: 1,
  subscriptions: [{ topic: "x".repeat(43), qos: 0 as const }],
};
const packets = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: publish },
    fc.constant({ cmd: "pingreq" as const }),
    fc.constant(subscribe),
  ),
  { maxLength: 12 },
);
const cuts = fc.array(fc.nat(), { maxLength: 10 });

function* chunks(bytes: Buffer, at: readonly number[]): Generator<Buffer> {
  const edges = [...new Set(at.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  let from = 0;
  for (const edge of [...edges, bytes.length]) {
    if (edge > from) yield bytes.subarray(from, edge);
    from = edge;
  }
}

test("however a stream of packets is cut, the lane sees what the library sees, in its order", async () => {
  const few = fc.constantFrom(undefined, 1, 2, 9);
  await fc.assert(
    fc.asyncProperty(packets, cuts, fc.boolean(), few, async (list, at, everywhere, packetsAtOnce) => {
      const bytes = Buffer.concat(list.map((packet) => mqttPacket.generate(packet)));
      const all: Seen[] = [];
      const tested = stand((publish) => all.push(taken(publish)), packetsAtOnce);
      tested.parser.removeAllListeners("packet");
      tested.parser.on("packet", (packet) => all.push(seen(packet)));
      const lane = tested.open();
      const edges = everywhere ? Array.from(bytes, (_, i) => i) : at;
      for (const chunk of chunks(bytes, edges)) lane.read(chunk);
      for (let turns = 0; tested.conn.isPaused; turns++) {
        assert.ok(turns < 100);
        await turn();
      }
      assert.equal(tested.failed(), false);
      const plain = stand(() => {});
      plain.parser.parse(bytes);
      assert.deepEqual(all, plain.library);
    }),
    { numRuns: 500 },
  );
});

test("any bytes whatever harm no more than they harm the library", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), cuts, (noise, at) => {
      const bytes = Buffer.from(noise);
      const outcome = (run: ReturnType<typeof stand>, read: (chunk: Buffer) => void): string => {
        try {
          for (const chunk of chunks(bytes, at)) if (!run.failed()) read(chunk);
          return run.failed() ? "error" : "fine";
        } catch (error) {
          return `thrown ${(error as Error).name}`;
        }
      };
      const tested = stand(() => {});
      const lane = tested.open();
      const plain = stand(() => {});
      const found = outcome(tested, (chunk) => lane.read(chunk));
      const expected = outcome(plain, (chunk) => plain.parser.parse(chunk));
      // The library would wait for the rest of a packet that is above the limit.
      if (expected === "fine" && found === "error") assert.equal(tested.client.closed, true);
      else assert.equal(found, expected);
    }),
    { numRuns: 2_000 },
  );
});

test("of thousands of packets that come together some are taken in each turn, and nothing is read meanwhile", async () => {
  const publishes: number[] = [];
  const { conn, client, library, open } = stand(({ packetId }) => void publishes.push(packetId), 16);
  const lane = open();
  const ping = Buffer.from([0xc0, 0]);
  const all = [...Array.from({ length: 100 }, (_, i) => bytesOf(i + 1)), ...Array(100).fill(ping)];
  lane.read(Buffer.concat(all));
  assert.deepEqual([publishes.length, library.length, conn.isPaused], [16, 0, true]);
  // It was told to pause, but had more at hand.
  lane.read(bytesOf(101));
  let seenBefore = 16;
  while (conn.isPaused) {
    await turn();
    const seenNow = publishes.length + library.length;
    assert.ok(seenNow > seenBefore && seenNow <= seenBefore + 16, `${seenNow - seenBefore} at once`);
    seenBefore = seenNow;
  }
  assert.deepEqual([publishes.length, library.length], [101, 100]);
  // Whoever ends in the midst of it is not heard any more.
  lane.read(Buffer.concat(all));
  client.closed = true;
  await turn();
  assert.equal(publishes.length, 117);
});

test("a packet above the limit is refused at its head", () => {
  const { open, failed } = stand(() => assert.fail("taken"));
  const lane = open();
  lane.read(Buffer.from([0x32, 0xff, 0xff]));
  assert.equal(failed(), false);
  lane.read(Buffer.from([0xff, 0x7f]));
  assert.equal(failed(), true);
});

test("what is answered in one turn leaves in one write, in the order of the answers", async () => {
  const waiting: Array<() => void> = [];
  const { written, open } = stand(({ packetId }, answers) =>
    waiting.push(() => answers.acknowledge(packetId, 1)),
  );
  const lane = open();
  for (const messageId of [7, 300, 65_535]) lane.read(bytesOf(messageId));
  assert.deepEqual(written, []);
  for (const done of waiting) done();
  await turn();
  assert.deepEqual(
    written.map((text) => Buffer.from(text, "latin1")),
    [Buffer.from([0x40, 2, 0, 7, 0x40, 2, 1, 44, 0x40, 2, 255, 255])],
  );
});

test("a client that takes no answers is not read on", async () => {
  const { conn, open } = stand(({ packetId }, answers) => {
    setImmediate(() => answers.acknowledge(packetId, 1));
  });
  conn.takes = false;
  const lane = open();
  lane.read(bytesOf(1));
  await turn();
  await turn();
  lane.read(bytesOf(2));
  assert.equal(conn.isPaused, true);
  conn.emit("drain");
  assert.equal(conn.isPaused, false);
});

test("a client that takes no answers of the library is not read on either", () => {
  const { conn, open } = stand(() => {});
  const lane = open();
  conn.writableNeedDrain = true;
  lane.read(bytesOf(1));
  assert.equal(conn.isPaused, true);
  conn.writableNeedDrain = false;
  conn.emit("drain");
  assert.equal(conn.isPaused, false);
});

test("a connection of which much waits for its answer is read on when that has come", async () => {
  const waiting: Array<() => void> = [];
  const { conn, open } = stand((publish, answers) => {
    const bytes = payloadOf(publish).length;
    waiting.push(() => answers.acknowledge(publish.packetId, bytes));
  });
  const lane = open();
  for (let i = 1; !conn.isPaused; i++) lane.read(bytesOf(i, Buffer.alloc(100_000)));
  assert.ok(waiting.length > 1);
  for (const done of waiting) done();
  await turn();
  assert.equal(conn.isPaused, false);
});

test("nothing is read while the library is at a packet of its own", () => {
  const { client, conn, open } = stand(() => {});
  client._parser.removeAllListeners("packet");
  client._parser.on("packet", () => {
    client._parsingBatch++;
  });
  const lane = open();
  lane.read(mqttPacket.generate({ cmd: "pingreq" }));
  assert.equal(conn.isPaused, true);
  client._nextBatch();
  assert.equal(conn.isPaused, false);
});
