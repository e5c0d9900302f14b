/** `npm run check`: types, lint and format, import rules, and documentation that must match the code. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { prepare, root } from "./prepare.mjs";

await prepare("build");

const bin = (name) => join(root, "node_modules", ".bin", name);
const STEPS = {
  types: [
    process.execPath,
    [join(root, "node_modules/typescript/bin/tsc"), "-p", root, "--noEmit", "--incremental", "false"],
  ],
  "console types": [
    process.execPath,
    [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "gateway/console/web"), "--noEmit"],
  ],
  "lint and format": [bin("biome"), ["check", "--error-on-warnings", "."]],
  "import rules": [
    bin("depcruise"),
    [
      "--config",
      ".dependency-cruiser.cjs",
      "agent",
      "gateway",
      "firmware-sim",
      "protocol",
      "runtime",
      "config",
      "test",
      "bench",
    ],
  ],
  documentation: [process.execPath, [join(root, "setup/docs.mjs"), "--check"]],
};

let failed = 0;
for (const [name, [command, args]] of Object.entries(STEPS)) {
  const done = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  const good = done.status === 0;
  process.stdout.write(`${good ? "ok  " : "FAIL"} ${name}\n`);
  if (good) continue;
  failed++;
  process.stdout.write(`${done.stdout}${done.stderr}\n`);
}
process.exit(failed === 0 ? 0 : 1);
