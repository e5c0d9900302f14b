/** How a program ends when it is told to. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import test from "node:test";

const PROGRAM = `
import { closeOnExit } from ${JSON.stringify(new URL("../../runtime/shutdown.js", import.meta.url).href)};
const log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };
closeOnExit(async () => {
  await new Promise((resolve) => setTimeout(resolve, 50));
  process.stdout.write("drained\\n");
}, log);
setInterval(() => {}, 1_000);
process.stdout.write("ready\\n");
`;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  test(`${signal} drains, also when it comes twice`, async () => {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", PROGRAM]);
    let said = "";
    child.stdout.on("data", (bytes) => {
      if (said === "") {
        child.kill(signal);
        child.kill(signal);
      }
      said += bytes;
    });
    const [code, endedBy] = await once(child, "close");
    assert.deepEqual([code, endedBy, said], [0, null, "ready\ndrained\n"]);
  });
}
