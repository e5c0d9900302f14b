import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { nodeFlags, scriptPath } from "../../../support/script.ts";
import { temporaryFolder } from "./buffer-fixture.ts";

const script = scriptPath("./next-part-no-descriptors.ts", import.meta.url);

for (const [when, what] of [
  ["for-a-while", "for the next part, records are taken on, and it is made when there is one again"],
  [
    "for-good",
    "for the next part, there is room for some records, then the buffer fails; the stored ones are there",
  ],
  ["removing", "to remove parts that were sent, they go when there is one again"],
] as const) {
  test(`without a file descriptor ${what}`, async (t) => {
    const command = ["-c", 'ulimit -n 256; exec "$@"', "sh", process.execPath, ...nodeFlags, script];
    const { stdout } = await promisify(execFile)("sh", [...command, await temporaryFolder(t), when]);
    assert.match(stdout, /all there/);
  });
}
