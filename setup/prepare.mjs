/**
 * Brings a checkout to the point where its programs can run: Node's version, npm packages, Debian
 * packages, build. Plain Node without dependencies, as it runs before there are any. What is done
 * already is recognised by a stamp, so that a second start loses no time.
 */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Debian packages, and the one file or command that shows that a package is there. */
const DEBIAN = {
  demo: {
    ffmpeg: "/usr/bin/ffmpeg",
    socat: "/usr/bin/socat",
    "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
  },
  test: {
    chromium: "/usr/bin/chromium",
    "python3-gi": "/usr/lib/python3/dist-packages/gi/__init__.py",
    "gir1.2-gst-rtsp-server-1.0": "/usr/lib/x86_64-linux-gnu/girepository-1.0/GstRtspServer-1.0.typelib",
    "gstreamer1.0-rtsp": "dpkg",
    "gstreamer1.0-tools": "/usr/bin/gst-launch-1.0",
    "gstreamer1.0-plugins-base": "dpkg",
    "gstreamer1.0-plugins-good": "dpkg",
    "gstreamer1.0-plugins-bad": "dpkg",
    "gstreamer1.0-plugins-ugly": "dpkg",
  },
};

const SOURCES = ["agent", "gateway", "firmware-sim", "protocol", "runtime", "config", "test", "bench"];

/** @param {"build" | "demo" | "test"} purpose */
export async function prepare(purpose) {
  requireNode();
  await npmPackages();
  if (purpose !== "build") await debianPackages(purpose);
  await build();
}

function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 11)) return;
  fail(
    `Headwater needs Node 20.11 or newer; this is ${process.version}.`,
    "Debian 12's own package is Node 18. Install Node 20 and run the same command again.",
  );
}

async function npmPackages() {
  const lock = readFileSync(join(root, "package-lock.json"));
  const wanted = createHash("sha256").update(lock).update(process.versions.modules).digest("hex");
  const stamp = join(root, "node_modules", ".headwater-stamp");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  say("npm packages: installing (about 320 MB, once)");
  await run("npm", ["ci", "--include=dev", "--no-audit", "--no-fund"], { quiet: true });
  writeFileSync(stamp, wanted);
}

async function debianPackages(purpose) {
  const wanted = { ...DEBIAN.demo, ...(purpose === "test" ? DEBIAN.test : {}) };
  const missing = Object.entries(wanted)
    .filter(([name, proof]) => (proof.startsWith("/") && existsSync(proof) ? false : !installed(name)))
    .map(([name]) => name);
  if (missing.length === 0) return;
  const install = `apt-get install -y --no-install-recommends ${missing.join(" ")}`;
  if (process.getuid?.() !== 0) {
    fail(
      `Debian packages are missing: ${missing.join(" ")}`,
      `Run this once, then the same command again:\n\n  sudo ${install}\n`,
    );
  }
  if (spawnSync("apt-get", ["--version"]).status !== 0) {
    fail(
      `Packages are missing, and this machine has no apt-get: ${missing.join(" ")}`,
      "Headwater sets itself up on Debian 12.",
    );
  }
  say(`Debian packages: installing ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const wait = ["-o", "DPkg::Lock::Timeout=120"];
  await run("apt-get", [...wait, "update", "-qq"], { quiet: true, env });
  await run("apt-get", [...wait, "install", "-y", "-qq", "--no-install-recommends", ...missing], {
    quiet: true,
    env,
  });
}

function installed(name) {
  const asked = spawnSync("dpkg-query", ["-W", "-f=${Status}", name], { encoding: "utf8" });
  return asked.status === 0 && asked.stdout.includes("ok installed");
}

/** Compiles what changed since the last build. */
export async function build() {
  const wanted = sourceHash();
  const stamp = join(root, "dist", ".headwater-stamp");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  say("build: compiling");
  mkdirSync(join(root, "dist"), { recursive: true });
  rmSync(stamp, { force: true });
  dropOrphans();
  await run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", root], {});
  await run(process.execPath, [join(root, "gateway/console/build.mjs")], {});
  writeFileSync(stamp, wanted);
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

/** Runs a command in the checkout; with `quiet` its output is shown only when it fails. */
export function run(command, args, { quiet = false, env = process.env } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env,
      stdio: quiet ? ["ignore", "pipe", "pipe"] : "inherit",
    });
    let output = "";
    child.stdout?.on("data", (chunk) => {
      output += chunk;
    });
    child.stderr?.on("data", (chunk) => {
      output += chunk;
    });
    child.on("error", (error) => fail(`${command} cannot be started: ${error.message}`));
    child.on("close", (code) => {
      if (code === 0) return resolve();
      process.stderr.write(output.slice(-4_000));
      fail(`${command} ${args.join(" ").slice(0, 200)} ended with ${code}`);
    });
  });
}

export function say(line) {
  process.stdout.write(`headwater: ${line}\n`);
}

export function fail(problem, hint = "") {
  process.stderr.write(`\nheadwater: ${problem}\n${hint}\n`);
  process.exit(1);
}
