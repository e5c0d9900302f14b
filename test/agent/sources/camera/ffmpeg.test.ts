import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import test from "node:test";
import { nodeFlags, scriptPath } from "../../../support/script.ts";

test("without descriptors ffmpeg is not started, and the agent lives on", { timeout: 180_000 }, async () => {
  const script = scriptPath("../ffmpeg-no-descriptors.ts", import.meta.url);
  const limited = ["-c", 'ulimit -n 200; exec "$0" "$@"', process.execPath, ...nodeFlags, script];
  const child = spawn("sh", limited, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const chunk of child.stdout) said += chunk;
  const short = "ffmpeg cannot be started now: too many files or processes are open";
  assert.equal(said, `ffmpeg ended with code 1; ${short}; ffmpeg ended with code 1\n`);
});
