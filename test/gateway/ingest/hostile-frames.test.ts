import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { encodeFrame } from "../../../protocol/frame.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const FRAMES = "headwater/v1/pi-1/frames";
/** Names stand here (protocol/frame.ts); a frame of another device ends the connection, as it should. */
const DEVICE_FROM = 48;
const DEVICE_TO = 52;

function frame(epoch: bigint, payload: string): Buffer {
  const records = [
    { key: "pi-1/a", timeUs: 1_000_000, payload: Buffer.from(payload) },
    { key: "pi-1/b", timeUs: 1_000_001, payload: Buffer.from("{}") },
  ];
  const head = { device: "pi-1", stream: "sensors", epoch, epochStart: 1, sequence: 1n, storedUs: 2_000_000 };
  return encodeFrame({ ...head, recordCount: 2, timeSource: "system" }, encodeBatch(records));
}

interface Change {
  readonly kind: "flip" | "cut" | "grow" | "word";
  readonly at: number;
  readonly value: number;
}

const changes = fc.array(
  fc.record({
    kind: fc.constantFrom<Change["kind"]>("flip", "cut", "grow", "word"),
    at: fc.nat(400),
    value: fc.oneof(fc.nat(0xff), fc.constantFrom(0, 1, 0x7fffffff, 0xffffffff)),
  }),
  { minLength: 1, maxLength: 4 },
);

function mutate(sound: Buffer, list: readonly Change[], mended: boolean): Buffer {
  let bytes = Buffer.from(sound);
  for (const { kind, at, value } of list) {
    if (kind === "cut") bytes = bytes.subarray(0, Math.max(1, at % (bytes.length + 1)));
    else if (kind === "grow") bytes = Buffer.concat([bytes, Buffer.alloc(1 + (at % 64), value & 0xff)]);
    else if (kind === "flip") bytes[at % bytes.length]! ^= 1 << (value & 7);
    else if (bytes.length >= 4) bytes.writeUInt32BE(value, at % (bytes.length - 3));
  }
  // With its checksum mended a lie gets past the first gate.
  if (mended && bytes.length >= DEVICE_TO) {
    sound.copy(bytes, DEVICE_FROM, DEVICE_FROM, DEVICE_TO);
    bytes.writeUInt16BE(4, 44);
    bytes.writeUInt32BE(bytes.length, 4);
    bytes.writeUInt32BE(crc32c(bytes, 12), 8);
  }
  return bytes;
}

test("whatever stands in a publish, it is acknowledged, and the next good one is stored", async (t) => {
  const door = await openDoor(t);
  const client = await new RawSensor(door.port).connect("headwater-pi-1");
  let packetId = 100;
  let good = 0;
  await fc.assert(
    fc.asyncProperty(changes, fc.boolean(), async (list, mended) => {
      packetId++;
      await client.acknowledged(packetId, FRAMES, mutate(frame(7n, "hostile"), list, mended));
      good++;
      await client.acknowledged(++packetId, FRAMES, frame(1_000n + BigInt(good), `good ${good}`));
    }),
    { numRuns: 300 },
  );
  const kept = (await stored(door.streams)).filter((text) => text.startsWith("good "));
  assert.equal(new Set(kept).size, good);
  assert.equal(kept.length, good);
});

test("whatever stands in a drained or status message, it is acknowledged", async (t) => {
  const door = await openDoor(t);
  const client = await new RawSensor(door.port).connect("headwater-pi-1");
  let packetId = 100;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("drained", "status", "unknown"),
      fc.oneof(fc.json(), fc.string(), fc.constant('{"epochs":["000000000000004d"]}')),
      async (kind, text) => client.acknowledged(++packetId, `headwater/v1/pi-1/${kind}`, text),
    ),
    { numRuns: 100 },
  );
});
