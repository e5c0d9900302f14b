import assert from "node:assert/strict";
import test from "node:test";
import { present } from "../../../agent/status/presentation.ts";
import { statusGauges } from "../../../agent/status/status-gauges.ts";
import { terminalText } from "../../../agent/status/terminal.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { madeStatus } from "./made-status.ts";

test("the terminal shows aligned columns, and colours only where they are wanted", () => {
  const shown = present(madeStatus());
  const plain = terminalText(shown, false);
  assert.ok(plain.startsWith("pi-1  All is well\n"), plain);
  const [head, board] = plain.split("\n").filter((line) => /Name|board/.test(line)) as [string, string];
  assert.equal(head.indexOf("State"), board.indexOf("running"));
  assert.equal(head.indexOf("Records") + "Records".length, board.indexOf("12,345") + "12,345".length);
  assert.match(
    plain,
    /Record buffer {2}1,234 records wait, 2\.0 KiB of 1\.0 MiB \(0 %\), the oldest for 1 min 30 s/,
  );
  assert.match(plain, /not JSON$/m);
  assert.ok(!plain.includes("\x1b"));
  const coloured = terminalText(shown, true);
  assert.ok(coloured.includes("\x1b[32mAll is well\x1b[0m"));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the colours
  assert.equal(coloured.replace(/\x1b\[\d+m/g, ""), plain);
});

test("what was sent is shown, and what compression made of it", () => {
  const uplink = { gateway: "mqtt://gateway:1883", connected: true, sinceMs: 5_000 };
  const shown = (frameBytes: number, wireBytes: number): string =>
    terminalText(present(madeStatus({ uplink: { ...uplink, sent: { frameBytes, wireBytes } } })), false);
  assert.doesNotMatch(shown(0, 0), /Sent/);
  assert.match(shown(7_168, 1_024), /Sent {11}7\.0 KiB of records, compressed to 1\.0 KiB/);
  assert.match(shown(7_168, 7_168), /Sent {11}7\.0 KiB of records$/m);
});

test("a name from outside does not steer the terminal", () => {
  const source = { ...madeStatus().sources[0]!, name: "a\x1b[2Jb\u202ec\nd", lastError: "\x07" };
  const text = terminalText(present(madeStatus({ sources: [source] })), false);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what must not be there
  assert.doesNotMatch(text, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
  assert.ok(text.includes("a?[2Jb?c?d"));
});

test("a held source and a fault are failures; a lost port and a gateway that is away are warnings", () => {
  const [board] = madeStatus().sources;
  const held = madeStatus({ sources: [{ ...board!, state: "stalled" }] });
  assert.equal(held.health.state, "failing");
  assert.deepEqual(held.health.reasons, ["board is held: the buffer takes nothing"]);
  assert.equal(madeStatus({ faults: ["the disk failed"] }).health.state, "failing");
  const lost = madeStatus({
    sources: [{ ...board!, state: "waiting", health: "backing-off", retryInMs: 700 }],
  });
  assert.equal(lost.health.state, "warned");
  assert.match(terminalText(present(lost), false), /tries in 0\.7 s/);
  const away = { gateway: "mqtt://gateway:1883", connected: false, sinceMs: 59_000 };
  assert.equal(madeStatus({ uplink: away }).health.state, "ok");
  assert.equal(madeStatus({ uplink: { ...away, sinceMs: 60_000 } }).health.state, "warned");
  const idle = { ...board!, state: "waiting" as const, health: "idle" as const };
  assert.equal(madeStatus({ sources: [idle] }).health.state, "ok");
});

test("a camera that sends nothing is a warning; how the time is known is told in words", () => {
  const [board] = madeStatus().sources;
  const stalled = madeStatus({ sources: [{ ...board!, name: "yard", type: "camera", state: "stalled" }] });
  assert.deepEqual(stalled.health, { state: "warned", reasons: [], warnings: ["yard sends no pictures"] });
  const text = (by: "ntp" | "gateway" | "system") =>
    terminalText(present(madeStatus({ clock: { ...madeStatus().clock, by } })), false);
  assert.match(text("ntp"), /kept by NTP, ± 0\.5 s/);
  assert.match(text("gateway"), /told by the gateway/);
  assert.match(text("system"), /nobody confirmed/);
});

test("the metrics say whether the agent is well, and how it knows the time", async () => {
  const metrics = new Metrics();
  let status = madeStatus();
  statusGauges(metrics, () => status);
  const lines = async () => (await metrics.render()).split("\n");
  const well = await lines();
  assert.ok(well.includes("headwater_agent_healthy 1"));
  assert.ok(well.includes('headwater_agent_clock_known{by="ntp"} 1'));
  assert.ok(well.includes('headwater_agent_clock_known{by="gateway"} 0'));
  assert.ok(well.includes("headwater_agent_clock_bound_seconds 0.5"));
  status = madeStatus({ faults: ["the disk failed"], clock: { known: false } });
  const ill = await lines();
  assert.ok(ill.includes("headwater_agent_healthy 0"));
  assert.ok(ill.includes('headwater_agent_clock_known{by="ntp"} 0'));
  assert.equal(
    ill.some((line) => line.startsWith("headwater_agent_clock_bound_seconds ")),
    false,
  );
});
