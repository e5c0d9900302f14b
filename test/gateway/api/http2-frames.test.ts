/** How large a frame of a client may be, and what it costs before it is whole. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import test, { type TestContext } from "node:test";
import {
  FLAG,
  FRAME,
  frame,
  headerBlock,
  SETTING,
  writeFrameHead,
} from "../../../bench/load/http2-frames.ts";
import { UnreadAnswers } from "../../../gateway/api/answers/unread-answers.ts";
import { BodyBudget, type BodyHolder } from "../../../gateway/api/bodies/body-budget.ts";
import { FrontDoor } from "../../../gateway/api/door/front-door.ts";
import type { LaneCall, LaneService } from "../../../gateway/api/door/lane-service.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { bufferBytes, heldAtMost } from "../../support/held-memory.ts";
import { openRawHttp2, SETTINGS_ACK } from "./raw-http2.ts";

const MAX_FRAME_BYTES = 262_144;
const CONNECTIONS = 100;
const FRAME_SIZE_ERROR = 6;

class CountedBudget extends BodyBudget {
  tookBytes = 0;
  override take(bytes: number, holder?: BodyHolder): boolean {
    this.tookBytes += bytes;
    return super.take(bytes, holder);
  }
}

class Lengths implements LaneService {
  readonly budget = new CountedBudget(2 ** 30);
  readonly unread = new UnreadAnswers(2 ** 20);
  readonly maxBodyBytes = 2 ** 20;
  begin(): LaneCall {
    return {
      keepsBody: false,
      keyId: "AKIAEVERYTHING",
      isProven: true,
      discard: () => {},
      run: (body, answer) =>
        answer({ status: 200, requestId: "id", contentType: "text/plain", body: `${body.length} bytes` }),
      refuse: () => {},
    };
  }
}

async function open(t: TestContext) {
  const service = new Lengths();
  const door = new FrontDoor(
    "127.0.0.1",
    0,
    (_, reply) => void reply.end(),
    (_, socket) => void socket.destroy(),
    { service, clock: systemClock },
  );
  await door.start();
  const sockets: Socket[] = [];
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    await door.close();
  });
  const client = async () => {
    const socket = await openRawHttp2(t, door.address.port);
    sockets.push(socket);
    const told = await heard(socket, FRAME.settings);
    // Before this the server holds us to what counts without settings.
    socket.write(SETTINGS_ACK);
    return { socket, told };
  };
  return { service, client };
}

/** A call, up to the first byte of its body. */
function begun(bodyBytes: number): Buffer {
  const head = Buffer.alloc(9);
  writeFrameHead(head, 0, bodyBytes, FRAME.data, FLAG.endStream, 1);
  const fields = headerBlock("127.0.0.1", { "x-amz-target": "any" });
  return Buffer.concat([frame(FRAME.headers, FLAG.endHeaders, 1, fields), head]);
}

/** Of all frames up to the first of that type, this one. */
async function heard(socket: Socket, type: number): Promise<Buffer> {
  let bytes: Buffer = Buffer.alloc(0);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    bytes = Buffer.concat([bytes, chunk as Buffer]);
    for (let at = 0; bytes.length >= at + 9; ) {
      const end = at + 9 + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      if (bytes[at + 3] === type) return bytes.subarray(at, end);
      at = end;
    }
  }
  throw new Error("the connection ended without it");
}

test("a frame of 256 KiB is allowed, and a larger one is an error of the connection", async (t) => {
  const { service, client } = await open(t);
  const { socket, told } = await client();
  const values = new Map<number, number>();
  for (let at = 9; at < told.length; at += 6) values.set(told.readUInt16BE(at), told.readUInt32BE(at + 2));
  assert.equal(values.get(SETTING.maxFrameSize), MAX_FRAME_BYTES);
  socket.write(Buffer.concat([begun(MAX_FRAME_BYTES), Buffer.alloc(MAX_FRAME_BYTES)]));
  assert.match((await heard(socket, FRAME.data)).toString("latin1"), /262144 bytes$/);

  const { socket: other } = await client();
  other.write(begun(MAX_FRAME_BYTES + 1));
  assert.equal((await heard(other, FRAME.goAway)).readUInt32BE(9 + 4), FRAME_SIZE_ERROR);
  // It is read no more; whoever has nothing more to say is let go in time (idle-session.ts).
  const before = service.budget.tookBytes;
  other.write(Buffer.alloc(MAX_FRAME_BYTES));
  const { socket: next } = await client();
  next.write(Buffer.concat([begun(3), Buffer.alloc(3)]));
  assert.match((await heard(next, FRAME.data)).toString("latin1"), /3 bytes$/);
  assert.equal(service.budget.tookBytes, before + 3);
});

test("frames that never end hold four times what has come of them, or 16 KiB", async (t) => {
  const { service, client } = await open(t);
  const clients = await Promise.all(Array.from({ length: CONNECTIONS }, client));
  const sockets = clients.map(({ socket }) => socket);
  const { budget } = service;
  const before = bufferBytes();
  let sentBytes = 0;
  for (const [upTo, heldBytes] of [
    [1, 16_384],
    [10_000, 16_384],
    [20_000, 65_536],
  ] as const) {
    const piece = Buffer.alloc(upTo - sentBytes);
    for (const socket of sockets) {
      socket.write(sentBytes === 0 ? Buffer.concat([begun(MAX_FRAME_BYTES), piece]) : piece);
    }
    sentBytes = upTo;
    while (budget.tookBytes < CONNECTIONS * upTo) {
      assert.ok(sockets.every((socket) => !socket.destroyed && !socket.readableEnded));
      await new Promise((resolve) => setImmediate(resolve));
    }
    // What each connection last read is kept until the next read; the rest is for what others do.
    await heldAtMost(CONNECTIONS * (heldBytes + 20_000) + 2 ** 21, before);
  }
  const answers = sockets.map((socket) => heard(socket, FRAME.data));
  for (const socket of sockets) socket.write(Buffer.alloc(MAX_FRAME_BYTES - sentBytes));
  for (const answer of await Promise.all(answers)) {
    assert.match(answer.toString("latin1"), /262144 bytes$/);
  }
});
