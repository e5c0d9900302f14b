/** What becomes of the log where it cannot be written. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import test from "node:test";

const PROGRAM = `
import { createLog } from ${JSON.stringify(new URL("../../runtime/log.js", import.meta.url).href)};
const log = createLog("gateway", "info");
const before = process.memoryUsage.rss();
for (let i = 0; i < 40_000; i++) log.child({ i }).warn({ text: "x".repeat(2_000) }, "the disk refuses writes");
process.stdout.write(\`lives, \${Math.round((process.memoryUsage.rss() - before) / 1_048_576)} MiB\`);
`;

test("a log on a full disk ends no program, and does not fill its memory", async () => {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", PROGRAM], {
    stdio: ["ignore", "pipe", openSync("/dev/full", "w")],
  });
  let said = "";
  child.stdout!.on("data", (bytes) => (said += bytes));
  const [code] = await once(child, "close");
  assert.equal(code, 0);
  const [, mib] = /^lives, (-?\d+) MiB$/.exec(said) ?? [];
  assert.ok(Number(mib) < 64, said);
});
