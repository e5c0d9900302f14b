import assert from "node:assert/strict";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { keptTime } from "../../../agent/time/device-time.ts";
import { removeFolder } from "../../support/remove-folder.ts";

test("a real-time clock is believed only where it went on while the device was off", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "hw-rtc-"));
  t.after(() => removeFolder(folder));
  const says = (text: string) => writeFile(join(folder, "since_epoch"), text);
  await says("1795427000\n");
  assert.equal(keptTime(folder), true);
  // A Raspberry Pi 5 without a battery, seventeen seconds after power came.
  await says("17\n");
  assert.equal(keptTime(folder), false);
  // A chip that was without power begins in 2000.
  await says("946684817\n");
  assert.equal(keptTime(folder), false);
  await says("");
  assert.equal(keptTime(folder), false);
  // One whose oscillator had stopped refuses to be read.
  assert.equal(keptTime(join(folder, "none")), false);
});
