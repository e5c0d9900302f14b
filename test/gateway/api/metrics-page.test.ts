/** Many who ask for /metrics at once, as anybody may where it is open. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import test from "node:test";
import { MetricsPage } from "../../../gateway/api/console/metrics-page.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openFixture } from "./api-fixture.ts";

/** Stands once in each text: those of HELP and TYPE begin otherwise. */
const LINE = "\nheadwater_looks ";

/** Metrics that count how often somebody looks. */
function counted(): { metrics: Metrics; looks: () => number } {
  const metrics = new Metrics();
  let looks = 0;
  metrics.gauge("headwater_looks", "How often somebody looked", [], function () {
    this.set(++looks);
  });
  return { metrics, looks: () => looks };
}

test("a thousand pipelined requests for /metrics are answered with a few texts", async (t) => {
  const { metrics, looks } = counted();
  const fixture = await openFixture({ api: { metrics } });
  t.after(fixture.close);
  const socket = connect(fixture.port, "127.0.0.1");
  t.after(() => socket.destroy());
  const asked = 1_000;
  let answered = 0;
  let last = "";
  socket.on("data", (chunk) => {
    const text = last + chunk.toString("latin1");
    answered += text.split(LINE).length - 1;
    last = text.slice(1 - LINE.length);
  });
  socket.write("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(asked));
  while (answered < asked) await once(socket, "data");
  t.diagnostic(`${looks()} texts`);
  assert.ok(looks() < 50, `${looks()} texts`);
});

test("nobody gets a text from before they asked, and a failure is not kept", async () => {
  const { metrics } = counted();
  let isBroken = false;
  metrics.gauge("headwater_odd", "Fails when told to", [], () => {
    if (isBroken) throw new Error("it broke");
  });
  const page = new MetricsPage(metrics, systemClock);
  const looksIn = async (text: Promise<Buffer>): Promise<number> =>
    Number(/^headwater_looks (\d+)$/m.exec((await text).toString())?.[1]);
  const first = page.text();
  assert.equal(await looksIn(first), 1);
  const [second, third] = [page.text(), page.text()];
  assert.equal(second, third);
  assert.equal(await looksIn(second), 2);
  isBroken = true;
  await assert.rejects(page.text(), /it broke/);
  isBroken = false;
  assert.equal(await looksIn(page.text()), 4);
});
