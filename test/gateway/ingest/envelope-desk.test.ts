import assert from "node:assert/strict";
import test from "node:test";
import type { Client } from "aedes";
import { EnvelopeDesk } from "../../../gateway/ingest/envelope-desk.ts";
import { newSession, type Session } from "../../../gateway/ingest/publish.ts";
import { sealSync } from "../../../protocol/publish-envelope.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const LARGE_BYTES = 80_000;

/** A desk with little room, sessions, and what was taken of which, each until it is told to be stored. */
function stand(maxOpenBytes: number) {
  const metrics = new Metrics();
  const desk = new EnvelopeDesk(metrics, maxOpenBytes);
  const taken: string[] = [];
  const stored = new Map<string, () => void>();
  let wake = (): void => {};
  return {
    desk,
    taken,
    session: (id: string): Session => newSession({ id, closed: false } as unknown as Client, id),
    send(session: Session, name: string, bytes = LARGE_BYTES): void {
      desk.take({
        session,
        bytes: sealSync(Buffer.alloc(bytes, name)),
        take: (frames) => {
          assert.ok(frames.equals(Buffer.alloc(bytes, name)));
          taken.push(name);
          wake();
          return { settled: new Promise((resolve) => stored.set(name, () => resolve(undefined))) };
        },
        refuse: (error) => assert.fail(String(error)),
      });
    },
    store: (name: string): void => stored.get(name)?.(),
    async untilTaken(count: number): Promise<void> {
      while (taken.length < count) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async heldBytes(): Promise<number> {
      const line = /^headwater_ingest_envelope_held_bytes (\d+)$/m.exec(await metrics.render());
      return Number(line?.[1]);
    },
  };
}

/** What could go on in this time would have. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
}

test("what was opened takes room until it is stored, and others wait for that", async () => {
  const { desk, session, send, store, taken, untilTaken, heldBytes } = stand(100_000);
  const [a, b, c] = ["a", "b", "c"].map((id) => session(id)) as [Session, Session, Session];
  send(a, "a1");
  send(b, "b1");
  send(c, "c1", 1_000);
  await untilTaken(1);
  await settle();
  assert.deepEqual(taken, ["a1"]);
  assert.equal(await heldBytes(), LARGE_BYTES);
  assert.deepEqual([desk.isBusy(a), desk.isBusy(b), desk.isBusy(c)], [false, true, true]);
  store("a1");
  await untilTaken(3);
  // Those two were opened side by side.
  assert.deepEqual(taken.slice(1).sort(), ["b1", "c1"]);
  for (const name of ["b1", "c1"]) store(name);
  await settle();
  assert.equal(await heldBytes(), 0);
});

test("one that is larger than all the room is opened when it is alone", async () => {
  const { session, send, store, untilTaken, heldBytes } = stand(1_000);
  send(session("a"), "a1");
  await untilTaken(1);
  store("a1");
  await settle();
  assert.equal(await heldBytes(), 0);
});

test("a session that ends, or leaves a publish unanswered, gives up what waits, and its room", async () => {
  for (const end of ["closed", "withheld", "dropped"] as const) {
    const { desk, session, send, store, taken, untilTaken, heldBytes } = stand(100_000);
    const [a, b] = [session("a"), session("b")];
    const acted: string[] = [];
    send(a, "a1");
    send(b, "b1");
    send(b, "b2");
    desk.behind(b, () => void acted.push("behind b"));
    await untilTaken(1);
    if (end === "withheld") b.withheld = true;
    else (b.client as { closed: boolean }).closed = true;
    if (end === "dropped") desk.drop(b);
    store("a1");
    await settle();
    assert.deepEqual([taken, acted, desk.isBusy(b)], [["a1"], [], false], end);
    assert.equal(await heldBytes(), 0);
  }
});

test("what comes behind an envelope is called behind it, and at once where there is none", async () => {
  const { desk, session, send, taken, untilTaken } = stand(1_000_000);
  const a = session("a");
  desk.behind(a, () => void taken.push("first"));
  send(a, "a1");
  desk.behind(a, () => void taken.push("second"));
  send(a, "a2", 1_000);
  await untilTaken(4);
  assert.deepEqual(taken, ["first", "a1", "second", "a2"]);
});
