import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { type Outgoing, outgoing, queuedBytes } from "../../../agent/uplink/outgoing.ts";
import { SilenceWatch } from "../../../agent/uplink/silence.ts";

/** A watch whose time passes only when told. */
function handTurned(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const hand = {
    asked: 0,
    silentAtMs: undefined as number | undefined,
    sent: undefined as Outgoing | undefined,
    nowMs: 0,
    async pass(ms: number) {
      for (let i = 0; i < ms / 100; i++) {
        hand.nowMs += 100;
        t.mock.timers.tick(100);
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
  };
  const watch = new SilenceWatch({
    clock: { monotonicMs: () => hand.nowMs },
    ask: () => hand.asked++,
    silent: () => {
      hand.silentAtMs = hand.nowMs;
    },
    outgoing: async () => hand.sent,
  });
  t.after(() => watch.close());
  watch.start();
  return Object.assign(hand, { watch });
}

test("a silent connection is asked once, and given up within 30 s of the last byte", async (t) => {
  const hand = handTurned(t);
  await hand.pass(5_000);
  hand.watch.heard();
  await hand.pass(9_000);
  assert.equal(hand.asked, 0);
  await hand.pass(20_000);
  assert.equal(hand.asked, 1);
  assert.ok(hand.silentAtMs! - 5_000 <= 30_000 && hand.silentAtMs! - 5_000 >= 24_000, `${hand.silentAtMs}`);
});

test("who answers is left alone, and asked again in the next silence", async (t) => {
  const hand = handTurned(t);
  for (let i = 1; i <= 5; i++) {
    await hand.pass(12_000);
    assert.equal(hand.asked, i);
    hand.watch.heard();
  }
  assert.equal(hand.silentAtMs, undefined);
});

test("over a slow link it lives while the peer's kernel confirms more, and no longer", async (t) => {
  const hand = handTurned(t);
  for (let second = 0; second < 300; second++) {
    // New bytes are written all the time, so what waits does not become less.
    hand.sent = { confirmedBytes: second * 2_000, unconfirmedBytes: 900_000 };
    await hand.pass(1_000);
  }
  assert.equal(hand.silentAtMs, undefined);
  await hand.pass(20_000);
  assert.ok(hand.silentAtMs! <= 317_000, `${hand.silentAtMs}`);
});

test("what somebody between confirms at once is no sign of the peer", async (t) => {
  const hand = handTurned(t);
  for (let second = 0; second < 60; second++) {
    hand.sent = { confirmedBytes: second * 600, unconfirmedBytes: second % 2 === 0 ? 600 : 0 };
    await hand.pass(1_000);
  }
  assert.ok(hand.silentAtMs! <= 30_000, `${hand.silentAtMs}`);
});

test("a closed watch neither asks nor gives up", async (t) => {
  const hand = handTurned(t);
  await hand.pass(11_000);
  hand.watch.close();
  await hand.pass(60_000);
  assert.equal(hand.silentAtMs, undefined);
});

test("it is known how far a write has come", { skip: process.platform !== "linux" }, async (t) => {
  for (const host of ["127.0.0.1", "::1"]) {
    const taken: Socket[] = [];
    const server = createServer((socket) => taken.push(socket.pause()));
    server.listen(0, host);
    await once(server, "listening");
    const socket = connect((server.address() as { port: number }).port, host);
    socket.on("error", () => {});
    t.after(() => {
      socket.destroy();
      for (const one of taken) one.destroy();
      server.close();
    });
    await once(socket, "connect");
    assert.deepEqual(await outgoing(socket), { confirmedBytes: 0, unconfirmedBytes: 0 });
    // More than both kernels take for somebody who does not read.
    const size = 32 << 20;
    socket.write(Buffer.alloc(size));
    let before = (await outgoing(socket))!;
    assert.equal(before.confirmedBytes + before.unconfirmedBytes, size);
    assert.ok(before.unconfirmedBytes > 1 << 20);
    // It is one write, and is seen to move on within it.
    for (let looks = 0; looks < 3; looks++) {
      taken[0]!.read();
      while ((await outgoing(socket))!.confirmedBytes <= before.confirmedBytes) {
        taken[0]!.read();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      before = (await outgoing(socket))!;
      assert.ok(before.confirmedBytes < size);
    }
  }
  assert.equal(await outgoing(undefined), undefined);
  const unknown = { localPort: 1, remotePort: 1, bytesWritten: 5, writableLength: 5 };
  assert.equal(await outgoing(unknown), undefined);
});

test("any text in place of the kernel's table says nothing, and does no harm", () => {
  const line = (queue: string): string =>
    `   0: 0100007F:624E 0100007F:2328 01 ${queue}:00000000 00:00000000 00000000  0  0 1556497 1 0`;
  assert.equal(queuedBytes(`  sl  local_address\n${line("000000FF")}\n`, 0x624e, 0x2328), 255);
  assert.equal(queuedBytes(line("000000FF"), 0x2328, 0x624e), undefined);
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 400 }), (text) => {
      assert.equal(queuedBytes(`${text}\n${text}`, 1, 2), undefined);
    }),
  );
});
