/** What devices ask over HTTPS, beside those that hold open whatever they may. */
import assert from "node:assert/strict";
import http2 from "node:http2";
import test, { type TestContext } from "node:test";
import { JOIN_PATH } from "../../../protocol/joining.ts";
import { JoiningRig } from "../identity/joining-rig.ts";

/** Together more than all who join may send at once; the small ones fill what the large ones leave. */
const HELD_BYTES = [8_000, 100, 1].flatMap((bytes) => new Array<number>(140).fill(bytes));
const SESSIONS = 4;

/** Begins to join, over and over, and never comes to an end. */
async function holdOpen(t: TestContext, port: number): Promise<void> {
  const sessions = Array.from({ length: SESSIONS }, () =>
    http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false }).on("error", () => {}),
  );
  t.after(() => {
    for (const session of sessions) session.destroy();
  });
  for (const [i, bytes] of HELD_BYTES.entries()) {
    const stream = sessions[i % SESSIONS]!.request(
      { ":method": "POST", ":path": JOIN_PATH },
      { endStream: false },
    );
    stream.on("error", () => {});
    stream.resume();
    await new Promise((resolve) => stream.write(Buffer.alloc(bytes), resolve));
  }
  // What was written before has arrived when this is answered.
  await Promise.all(sessions.map((session) => new Promise<void>((resolve) => session.ping(() => resolve()))));
}

test("who begins to join and never ends keeps no device from joining", async (t) => {
  const rig = await JoiningRig.start(t);
  const token = await rig.token("pi-1");
  await holdOpen(t, rig.port("https"));
  const ran = await rig.join(token);
  assert.equal(ran.code, 0, ran.errors);
});
