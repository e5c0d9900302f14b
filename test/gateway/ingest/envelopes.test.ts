import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import test from "node:test";
import { brotliCompressSync, constants } from "node:zlib";
import fc from "fast-check";
import { LogFullError, type Streams } from "../../../gateway/streams/streams.ts";
import { encodeFrame } from "../../../protocol/frame.ts";
import { ENVELOPE_HEAD_BYTES, MAX_ENVELOPED_BYTES, sealSync } from "../../../protocol/publish-envelope.ts";
import { encodeBatch } from "../../../protocol/record-batch.ts";
import { crc32c } from "../../../runtime/crc32c.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const FRAMES = "headwater/v1/pi-1/frames";
/** Beyond what is opened within the call. */
const LARGE_BYTES = 200_000;

interface Changes {
  readonly device?: string;
  readonly epoch?: bigint;
  /** Makes it large. */
  readonly filling?: Buffer;
}

function frame(sequence: number, payload: string, changes: Changes = {}): Buffer {
  const payloads = [Buffer.from(payload), ...(changes.filling === undefined ? [] : [changes.filling])];
  const records = payloads.map((bytes, i) => ({ key: `pi-1/s${i}`, timeUs: 1_000_000, payload: bytes }));
  return encodeFrame(
    {
      device: changes.device ?? "pi-1",
      stream: "sensors",
      epoch: changes.epoch ?? 77n,
      epochStart: 1,
      sequence: BigInt(sequence),
      storedUs: 2_000_000,
      recordCount: records.length,
      timeSource: "system",
    },
    encodeBatch(records),
  );
}

const FILLING = Buffer.alloc(LARGE_BYTES, "filling ");
const large = (sequence: number, payload: string): Buffer => frame(sequence, payload, { filling: FILLING });

/** With a checksum that fits whatever stands in it. */
function lying(plainBytes: number, compressed: Uint8Array): Buffer {
  const bytes = Buffer.concat([sealSync(Buffer.from("x")).subarray(0, ENVELOPE_HEAD_BYTES), compressed]);
  bytes.writeUInt32BE(plainBytes, 4);
  bytes.writeUInt32BE(crc32c(bytes, ENVELOPE_HEAD_BYTES, bytes.length, crc32c(bytes, 0, 8)), 8);
  return bytes;
}

function zeros(bytes: number): Buffer {
  return brotliCompressSync(Buffer.alloc(bytes), { params: { [constants.BROTLI_PARAM_QUALITY]: 2 } });
}

async function storedTexts(streams: Streams): Promise<string[]> {
  return (await stored(streams)).filter((text) => text.length < 100);
}

/** A stream store of which one method is another's. */
function replaced<N extends keyof Streams>(real: Streams, name: N, method: Streams[N]): Streams {
  return new Proxy(real, {
    get(target, asked) {
      return asked === name ? method : Reflect.get(target, asked)?.bind(target);
    },
  });
}

test("whoever begins to listen to a control topic hears what the gateway accepts", async (t) => {
  const { port } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.send({
    cmd: "subscribe",
    messageId: 1,
    subscriptions: [{ topic: "headwater/v1/pi-1/control", qos: 0 }],
  });
  assert.equal((await client.next()).cmd, "suback");
  const hello = await client.next();
  assert.ok(hello.cmd === "publish");
  assert.equal(hello.topic, "headwater/v1/pi-1/control");
  assert.deepEqual(JSON.parse(hello.payload.toString()), { type: "hello", accepts: ["brotli"] });
  // A topic that it may not hear brings nothing.
  client.send({
    cmd: "subscribe",
    messageId: 2,
    subscriptions: [{ topic: "headwater/v1/pi-1/frames", qos: 0 }],
  });
  assert.equal((await client.next()).cmd, "suback");
  await client.acknowledged(3, FRAMES, frame(1, "a"));
});

test("frames in an envelope are stored as if they had come plain, small and large", async (t) => {
  const { port, streams, ingest } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  await client.acknowledged(1, FRAMES, sealSync(Buffer.concat([frame(1, "a"), frame(2, "b")])));
  await client.acknowledged(2, FRAMES, sealSync(Buffer.concat([large(3, "c"), frame(4, "d")])));
  assert.deepEqual(await storedTexts(streams), ["a", "b", "c", "d"]);
  assert.ok((await stored(streams)).includes(FILLING.toString()));
  const device = ingest.devices().find((one) => one.device === "pi-1");
  assert.deepEqual([device?.frames, device?.duplicateFrames, device?.missedFrames], [4, 0, 0]);
});

test("what comes plain behind an envelope that is being opened keeps its place", async (t) => {
  const appended: bigint[] = [];
  let epoch = 1_000n;
  const { port, streams, ingest } = await openDoor(t, {
    wrap: (real) =>
      replaced(real, "appendFrame", (asked) => {
        appended.push(asked.sequence);
        return real.appendFrame(asked);
      }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom("plain", "small", "large", "again"), { minLength: 2, maxLength: 12 }),
      async (kinds) => {
        epoch++;
        appended.length = 0;
        const client = await new RawSensor(port).connect("headwater-pi-1");
        client.socket.cork();
        let sequence = 0;
        for (const [i, kind] of kinds.entries()) {
          if (kind !== "again" || sequence === 0) sequence++;
          const filling = kind === "large" ? FILLING : Buffer.from("small");
          const bytes = frame(sequence, `${epoch} ${sequence}`, { epoch, filling });
          client.publish(i + 1, FRAMES, kind === "plain" ? bytes : sealSync(bytes));
        }
        client.socket.uncork();
        for (let i = 0; i < kinds.length; i++) assert.equal((await client.next()).cmd, "puback");
        await client.vanish();
        const once = (await storedTexts(streams)).filter((text) => text.startsWith(`${epoch} `));
        assert.equal(once.length, sequence);
        assert.deepEqual(
          appended,
          [...appended].sort((a, b) => Number(a - b)),
        );
        assert.equal(appended.length, kinds.length);
      },
    ),
    { numRuns: 25 },
  );
  assert.equal(ingest.devices().find((one) => one.device === "pi-1")?.missedFrames, 0);
});

test("an epoch is declared drained behind the envelope that came before", async (t) => {
  const { port, streams } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.publish(1, FRAMES, sealSync(large(1, "a")));
  client.publish(2, "headwater/v1/pi-1/drained", '{"epochs":["000000000000004d"]}');
  for (let i = 0; i < 2; i++) assert.equal((await client.next()).cmd, "puback");
  assert.equal(streams.describe("sensors").producers, 0);
});

test("while an envelope cannot be stored nothing later is taken, also what was being opened", async (t) => {
  let full = true;
  const asked: bigint[] = [];
  const { port, streams } = await openDoor(t, {
    wrap: (real) =>
      replaced(real, "appendFrame", (one) => {
        asked.push(one.sequence);
        if (!full) return real.appendFrame(one);
        full = false; // Room is back at once, which must not let a later frame overtake.
        return Promise.reject(new LogFullError("sensors"));
      }),
  });
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.socket.cork();
  for (let i = 1; i <= 4; i++) client.publish(i, FRAMES, sealSync(large(i, `${i}`)));
  client.publish(5, FRAMES, frame(5, "5"));
  client.socket.uncork();
  await client.ended;
  assert.deepEqual([asked, await storedTexts(streams)], [[1n], []]);
  const again = await new RawSensor(port).connect("headwater-pi-1");
  for (let i = 1; i <= 4; i++) again.publish(i, FRAMES, sealSync(large(i, `${i}`)));
  again.publish(5, FRAMES, frame(5, "5"));
  for (let i = 0; i < 5; i++) assert.equal((await again.next()).cmd, "puback");
  assert.deepEqual(await storedTexts(streams), ["1", "2", "3", "4", "5"]);
});

test("what is no sound envelope is quarantined and acknowledged, and what follows gets through", async (t) => {
  const { port, streams, ingest } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  const sound = frame(1, "sound");
  const sealed = sealSync(large(1, "sound"));
  const wrong = [
    Buffer.from("HZ"),
    lying(1_000, zeros(64 * 1_048_576)),
    lying(MAX_ENVELOPED_BYTES, zeros(64 * 1_048_576)),
    lying(MAX_ENVELOPED_BYTES + 1, zeros(MAX_ENVELOPED_BYTES + 1)),
    lying(LARGE_BYTES, sealed.subarray(ENVELOPE_HEAD_BYTES, sealed.length - 1)),
    lying(sound.length, Buffer.concat([brotliCompressSync(sound), Buffer.from("more")])),
    sealSync(sealSync(sound)),
    sealSync(Buffer.concat([sound, Buffer.from("more")])),
    sealSync(randomBytes(LARGE_BYTES)),
  ];
  for (const [i, bytes] of wrong.entries()) {
    await client.acknowledged(2 * i + 1, FRAMES, bytes);
    await client.acknowledged(2 * i + 2, FRAMES, sealSync(frame(i + 1, `good ${i}`)));
  }
  assert.equal(ingest.quarantine().publishes, wrong.length);
  assert.equal((await storedTexts(streams)).length, wrong.length);
});

test("whatever stands in an envelope, it is acknowledged, and the next good one is stored", async (t) => {
  const { port, streams } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  const changes = fc.array(fc.record({ at: fc.nat(), value: fc.nat(255) }), { minLength: 1, maxLength: 4 });
  let packetId = 0;
  let good = 0;
  await fc.assert(
    fc.asyncProperty(changes, fc.boolean(), fc.boolean(), async (list, isLarge, isMended) => {
      const bytes = Buffer.from(sealSync(isLarge ? large(1, "bad") : frame(1, "bad")));
      for (const { at, value } of list) bytes[at % bytes.length] = value;
      const hostile = isMended ? lying(bytes.readUInt32BE(4), bytes.subarray(ENVELOPE_HEAD_BYTES)) : bytes;
      good++;
      await client.acknowledged(++packetId, FRAMES, hostile);
      await client.acknowledged(
        ++packetId,
        FRAMES,
        sealSync(frame(1, `good ${good}`, { epoch: BigInt(1_000 + good) })),
      );
    }),
    { numRuns: 200 },
  );
  assert.equal((await storedTexts(streams)).filter((text) => text.startsWith("good ")).length, good);
});

test("a frame of another device in an envelope ends the connection", async (t) => {
  const { port, streams } = await openDoor(t);
  const client = await new RawSensor(port).connect("headwater-pi-1");
  client.publish(1, FRAMES, sealSync(frame(1, "forged", { device: "pi-2" })));
  await client.ended;
  const other = await new RawSensor(port).connect("headwater-pi-1");
  other.publish(1, FRAMES, sealSync(frame(1, "forged", { device: "pi-2", filling: FILLING })));
  await other.ended;
  assert.deepEqual(await stored(streams), []);
});

test("clients that vanish in the midst of their envelopes leave nothing behind", async (t) => {
  const { port, streams, metrics } = await openDoor(t);
  for (let round = 0; round < 5; round++) {
    const client = await new RawSensor(port).connect(`headwater-pi-1`);
    for (let i = 1; i <= 20; i++)
      client.publish(i, FRAMES, sealSync(large(20 * round + i, `${20 * round + i}`)));
    // Some of it has been taken.
    await once(client.socket, "data");
    await client.vanish();
  }
  const client = await new RawSensor(port).connect("headwater-pi-1");
  for (let i = 1; i <= 100; i++) await client.acknowledged(i, FRAMES, sealSync(frame(i, `${i}`)));
  assert.match(await metrics.render(), /^headwater_ingest_envelope_held_bytes 0$/m);
  const texts = await storedTexts(streams);
  assert.equal(new Set(texts).size, texts.length);
});
