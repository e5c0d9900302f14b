/**
 * `npm test`: sets up, builds and runs every test, or those whose path contains an argument.
 * `npm run test:engines`: the suites against engines that run beside Headwater, which take longer.
 */
import { spawn } from "node:child_process";
import { join, relative } from "node:path";
import { onParentEnd } from "./command.mjs";
import { filesBelow, prepare, root } from "./prepare.mjs";
import { fail, say } from "./terminal.mjs";

await prepare("test");

/** A cluster of three NATS servers, killed one by one. */
const ENGINE_SUITES = /gateway\/streams\/jetstream\//;

const [first, ...others] = process.argv.slice(2);
const engines = first === "--engines";
const wanted = engines ? others : process.argv.slice(2);
const all = filesBelow(join(root, "dist/test"), /\.test\.js$/)
  .map((path) => relative(root, path))
  .filter((path) => ENGINE_SUITES.test(path) === engines);
const tests = wanted.length === 0 ? all : all.filter((path) => wanted.some((part) => path.includes(part)));
if (tests.length === 0) fail("no test was found");
say(`${tests.length} test files`);

const child = spawn(process.execPath, ["--test", "--test-timeout=300000", "--enable-source-maps", ...tests], {
  cwd: root,
  stdio: "inherit",
});
child.on("close", (code) => process.exit(code ?? 1));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
onParentEnd(() => child.kill("SIGTERM"));
