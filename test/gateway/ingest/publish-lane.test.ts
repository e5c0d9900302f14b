import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import type { Client, PublishPacket } from "aedes";
import fc from "fast-check";
import mqttPacket, { type Packet } from "mqtt-packet";
import { PublishLane } from "../../../gateway/ingest/publish-lane.ts";

type Seen = [kind: string, topic: string, payload: string, messageId: number | undefined, flags: string];

const seen = (packet: Packet): Seen => {
  if (packet.cmd !== "publish") return [packet.cmd, "", "", undefined, ""];
  const { topic, payload, messageId, qos, dup, retain } = packet;
  return ["publish", topic, Buffer.from(payload).toString("hex"), messageId, `${qos} ${dup} ${retain}`];
};

/** The library's parser, its client's fields that the lane goes by, and a socket that keeps what is written. */
function stand(authorize: (packet: PublishPacket, done: () => void) => void) {
  const parser = mqttPacket.parser();
  const library: Seen[] = [];
  const written: Buffer[] = [];
  let failed = false;
  parser.on("packet", (packet) => library.push(seen(packet)));
  parser.on("error", () => {
    failed = true;
  });
  const client = Object.assign(new EventEmitter(), {
    _parser: Object.assign(parser, { _queue: null }),
    connackSent: true,
    closed: false,
    _keepaliveInterval: 0,
    _parsingBatch: 0,
    _nextBatch() {
      this._parsingBatch--;
    },
    conn: { destroyed: false, write: (bytes: Buffer) => written.push(Buffer.from(bytes)) > 0 },
  });
  client._nextBatch = client._nextBatch.bind(client);
  const lane = new PublishLane((_client, packet, done) => authorize(packet, done));
  const open = (): void => lane.open(client as unknown as Client);
  return { parser, client, library, written, open, failed: () => failed };
}

const publish = fc.record({
  cmd: fc.constant("publish" as const),
  topic: fc.constantFrom("a/b", "plant/1/temperature", "ü/☃", "x".repeat(300)),
  payload: fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  dup: fc.boolean(),
  retain: fc.boolean(),
  messageId: fc.integer({ min: 1, max: 65_535 }),
});
const packets = fc.array(
  fc.oneof({ weight: 5, arbitrary: publish }, fc.constant({ cmd: "pingreq" as const })),
  {
    maxLength: 12,
  },
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

test("however a stream of packets is cut, the lane sees what the library sees, in its order", () => {
  fc.assert(
    fc.property(packets, cuts, (list, at) => {
      const bytes = Buffer.concat(list.map((packet) => mqttPacket.generate(packet)));
      const all: Seen[] = [];
      const tested = stand((packet) => all.push(seen(packet as unknown as Packet)));
      tested.parser.removeAllListeners("packet");
      tested.parser.on("packet", (packet) => all.push(seen(packet)));
      tested.open();
      for (const chunk of chunks(bytes, at)) tested.parser.parse(chunk);
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
      const tested = stand(() => {});
      tested.open();
      const plain = stand(() => {});
      const outcome = (run: typeof tested): string => {
        try {
          for (const chunk of chunks(bytes, at)) if (!run.failed()) run.parser.parse(chunk);
          return run.failed() ? "error" : "fine";
        } catch (error) {
          return `thrown ${(error as Error).name}`;
        }
      };
      assert.equal(outcome(tested), outcome(plain));
    }),
    { numRuns: 2_000 },
  );
});

test("what is answered in one turn leaves in one write, in the order of the answers", async () => {
  const waiting: Array<() => void> = [];
  const { parser, client, written, open } = stand((_packet, done) => waiting.push(done));
  open();
  for (const messageId of [7, 300, 65_535]) {
    parser.parse(
      mqttPacket.generate({
        cmd: "publish",
        topic: "a",
        payload: "1",
        qos: 1,
        dup: false,
        retain: false,
        messageId,
      }),
    );
  }
  assert.equal(client._parsingBatch, 3);
  assert.equal(written.length, 0);
  for (const done of waiting) done();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(written, [Buffer.from([0x40, 2, 0, 7, 0x40, 2, 1, 44, 0x40, 2, 255, 255])]);
  assert.equal(client._parsingBatch, 0);
});

test("a client that takes no answers is not read on", async () => {
  const { parser, client, open } = stand((_packet, done) => setImmediate(done));
  let drained: () => void = () => {};
  client.conn.write = () => false;
  Object.assign(client, {
    waitForDrain: (done: () => void) => {
      drained = done;
    },
  });
  open();
  parser.parse(
    mqttPacket.generate({
      cmd: "publish",
      topic: "a",
      payload: "1",
      qos: 1,
      dup: false,
      retain: false,
      messageId: 1,
    }),
  );
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  assert.equal(client._parsingBatch, 1);
  drained();
  assert.equal(client._parsingBatch, 0);
});
