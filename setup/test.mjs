/**
 * `npm test`: sets up, builds and runs every test, or those whose path contains an argument.
 * `npm run test:engines`: the suites against engines that run beside Headwater, which take longer.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { onParentEnd } from "./command.mjs";
import { preferSoundNats } from "./newer-nats.mjs";
import { filesBelow, prepare, root } from "./prepare.mjs";
import { fail, say } from "./terminal.mjs";

const [first, ...others] = process.argv.slice(2);
const engines = first === "--engines";
await prepare("test", { engines });
if (engines) await preferSoundNats();

/** What a suite imports that starts an engine: a cluster of three NATS servers, killed one by one. */
const ENGINES = /\/(nats-cluster|cluster-fact)\.js"/;

const wanted = engines ? others : process.argv.slice(2);
const all = filesBelow(join(root, "dist/test"), /\.test\.js$/)
  .map((path) => relative(root, path))
  .filter((path) => ENGINES.test(readFileSync(join(root, path), "utf8")) === engines);
const tests = wanted.length === 0 ? all : all.filter((path) => wanted.some((part) => path.includes(part)));
if (tests.length === 0) fail("no test was found");
say(`${tests.length} test files`);

// Many wait for disks and for real time to pass, those of clusters most: two cores have time for so many.
const concurrency = engines ? 4 : 3;
const flags = [
  "--test",
  "--test-timeout=900000",
  `--test-concurrency=${concurrency}`,
  "--enable-source-maps",
];
// For people Node's own view, which tells failures last by itself.
if (!process.stdout.isTTY)
  flags.push("--test-reporter=./setup/failures-last.mjs", "--test-reporter-destination=stdout");
const child = spawn(process.execPath, [...flags, ...tests], {
  cwd: root,
  stdio: "inherit",
});
child.on("close", (code) => process.exit(code ?? 1));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
onParentEnd(() => child.kill("SIGTERM"));
