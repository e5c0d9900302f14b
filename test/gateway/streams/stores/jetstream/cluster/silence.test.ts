/** A cluster that answers nothing, by a clock of the test's. With a real one: connection.test.ts. */
import assert from "node:assert/strict";
import test from "node:test";
import { SILENT_MS, Silence } from "../../../../../../gateway/streams/stores/jetstream/cluster/silence.ts";
import type { Clock } from "../../../../../../runtime/clock.ts";
import { createLog } from "../../../../../../runtime/log.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";

class HandClock implements Clock {
  aheadMs = 0;
  nowUs(): number {
    return this.aheadMs * 1_000;
  }
  monotonicMs(): number {
    return this.aheadMs;
  }
}

test("a cluster that does not answer is told once it is silent for long, and once when it answers again", async () => {
  const clock = new HandClock();
  const said: { level: string; msg: string; silentMs: number }[] = [];
  const log = createLog("silence", "info", { write: (line) => said.push(JSON.parse(line)) });
  const metrics = new Metrics();
  const silence = new Silence({ clock, log, metrics });
  const pass = (ms: number): void => {
    clock.aheadMs += ms;
    silence.look();
  };
  const words = () => said.splice(0).map(({ level, msg, silentMs }) => [level, msg, silentMs]);
  pass(SILENT_MS - 1);
  assert.equal(silence.why, undefined);
  silence.answered();
  assert.deepEqual(words(), []);
  pass(SILENT_MS - 1);
  assert.equal(silence.why, undefined);
  pass(1);
  pass(5_000);
  assert.equal(silence.why, "the NATS cluster does not answer");
  assert.match(await metrics.render(), /^headwater_jetstream_silent_seconds 15$/m);
  assert.deepEqual(words(), [["error", "the NATS cluster does not answer", SILENT_MS]]);
  silence.answered();
  assert.equal(silence.why, undefined);
  silence.answered();
  assert.deepEqual(words(), [["info", "the NATS cluster answers again", SILENT_MS + 5_000]]);
  assert.match(await metrics.render(), /^headwater_jetstream_silent_seconds 0$/m);
});
