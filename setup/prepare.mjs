/**
 * Brings a checkout to the point where its programs can run: Node's version, npm packages, Debian
 * packages, build. Plain Node without dependencies, as it runs before there are any. What is done
 * already is recognised by a stamp, so that a second start loses no time.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { claim } from "./claim.mjs";
import { interruptible, run } from "./command.mjs";
import {
  installDebianPackages,
  installEngines,
  installNpmPackages,
  missingDebianPackages,
  missingEngines,
  npmPackagesMissing,
} from "./packages.mjs";
import { fail, Progress, say } from "./terminal.mjs";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const SOURCES = ["agent", "gateway", "firmware-sim", "protocol", "runtime", "config", "test", "bench"];
const WAIT_MS = 500;
const BUILD_STAMP = join(root, "dist", ".headwater-stamp");

/**
 * @param {"build" | "demo" | "test"} purpose
 * @param {{engines?: boolean}} options engines: tries to get what some suites need beside us
 */
export async function prepare(purpose, { engines = false } = {}) {
  requireNode();
  await interruptible(async () => {
    // First what may need another user, so that nobody waits for the rest in vain.
    const missing = purpose === "build" ? [] : missingDebianPackages(purpose);
    const wanted = engines ? missingEngines() : [];
    if (missing.length + wanted.length === 0 && !npmPackagesMissing(root) && !buildMissing()) return;
    const mine = await aloneInCheckout();
    if (missing.length > 0) await installDebianPackages(missing);
    if (wanted.length > 0) await installEngines(wanted);
    if (npmPackagesMissing(root)) await installNpmPackages(root);
    await build();
    mine.release();
  });
}

function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 11)) return;
  fail(
    `Headwater needs Node 20.11 or newer; this is ${process.versions.node}.`,
    "Debian 12's own package is Node 18. Install Node 20 or 22 from nodejs.org and run the same command again.",
  );
}

/** Two set-ups at once would take the packages from under one another. */
async function aloneInCheckout() {
  const file = join(root, ".data", "setup.pid");
  let told = false;
  for (;;) {
    const mine = claim(file);
    if (mine.release !== undefined) return mine;
    if (!told) say(`another set-up of this checkout runs (process ${mine.holder}); waiting for it`);
    told = true;
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
}

/** Compiles what changed since the last build. */
async function build() {
  if (!buildMissing()) return;
  const wanted = sourceHash();
  const progress = new Progress("build", "compiling, about 20 s");
  mkdirSync(join(root, "dist"), { recursive: true });
  rmSync(BUILD_STAMP, { force: true });
  dropOrphans();
  await run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root], { cwd: root });
  await run(process.execPath, [join(root, "gateway/console/build.mjs")], { cwd: root });
  writeFileSync(BUILD_STAMP, wanted);
  progress.done();
}

function buildMissing() {
  return !existsSync(BUILD_STAMP) || readFileSync(BUILD_STAMP, "utf8") !== sourceHash();
}

/** The compiler leaves what it made of a source that is gone; a test among it would still run. */
function dropOrphans() {
  for (const folder of SOURCES) {
    for (const made of filesBelow(join(root, "dist", folder), /\.js$/)) {
      const source = join(root, relative(join(root, "dist"), made)).replace(/\.js$/, ".ts");
      if (existsSync(source) || made.startsWith(join(root, "dist/gateway/console"))) continue;
      rmSync(made);
      rmSync(`${made}.map`, { force: true });
    }
  }
}

function sourceHash() {
  const hash = createHash("sha256");
  const files = SOURCES.flatMap((folder) => filesBelow(join(root, folder), /\.(ts|mjs|html|css|json)$/));
  for (const file of [...files, join(root, "tsconfig.json"), join(root, "package-lock.json")]) {
    hash.update(relative(root, file)).update(readFileSync(file));
  }
  return hash.digest("hex");
}

/** @returns {string[]} sorted paths */
export function filesBelow(folder, pattern) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .sort()
    .flatMap((name) => {
      const path = join(folder, name);
      if (statSync(path).isDirectory()) return name === "node_modules" ? [] : filesBelow(path, pattern);
      return pattern.test(name) ? [path] : [];
    });
}
