/** The npm packages and the Debian packages: what is missing is installed, and said how far it is. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "./command.mjs";
import { fail, Progress, say } from "./terminal.mjs";

/** Debian packages, and the one file that shows that a package is there. */
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
    faketime: "/usr/bin/faketime",
    awscli: "/usr/bin/aws",
    "python3-boto3": "/usr/lib/python3/dist-packages/boto3/__init__.py",
  },
};

/** What runs beside Headwater in some suites; where one cannot be had, its tests are left out. */
const ENGINES = { "nats-server": "/usr/sbin/nats-server" };

const COUNT_MS = 700;

export function npmPackagesMissing(root) {
  return !existsSync(stampFile(root)) || readFileSync(stampFile(root), "utf8") !== wantedStamp(root);
}

export async function installNpmPackages(root) {
  const progress = new Progress("npm packages", "about 320 MB, once");
  const folders = packageFolders(root);
  const counting = setInterval(() => {
    const there = folders.filter((folder) => existsSync(join(folder, "package.json"))).length;
    progress.update(`${there} of ${folders.length}`);
  }, COUNT_MS);
  await run("npm", ["ci", "--include=dev", "--no-audit", "--no-fund"], {
    cwd: root,
    hint: "Is the network there? npm's own settings (registry, proxy) apply. Then run the same command again.",
  });
  clearInterval(counting);
  writeFileSync(stampFile(root), wantedStamp(root));
  progress.done();
}

const stampFile = (root) => join(root, "node_modules", ".headwater-stamp");

function wantedStamp(root) {
  const lock = readFileSync(join(root, "package-lock.json"));
  return createHash("sha256").update(lock).update(process.versions.modules).digest("hex");
}

/** Where the packages of the lock file will be, without those for other machines. */
function packageFolders(root) {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const fits = (wanted, own) => wanted === undefined || wanted.includes(own);
  return Object.entries(packages)
    .filter(([path, { os, cpu }]) => path !== "" && fits(os, process.platform) && fits(cpu, process.arch))
    .map(([path]) => join(root, path));
}

/** @param {"demo" | "test"} purpose */
export function missingDebianPackages(purpose) {
  return missingOf({ ...DEBIAN.demo, ...(purpose === "test" ? DEBIAN.test : {}) });
}

export function missingEngines() {
  return missingOf(ENGINES);
}

function missingOf(wanted) {
  return Object.entries(wanted)
    .filter(([name, proof]) => !(proof.startsWith("/") && existsSync(proof)) && !installed(name))
    .map(([name]) => name);
}

/** Ends the program where this cannot be done, with the one command that does it. */
export async function installDebianPackages(names) {
  if (!haveApt()) {
    fail(
      `Packages are missing, and this machine has no apt-get: ${names.join(" ")}`,
      "Headwater sets itself up on Debian 12; elsewhere install what these packages hold yourself.",
    );
  }
  if (process.getuid?.() !== 0) {
    fail(
      `Debian packages are missing: ${names.join(" ")}`,
      `Run this once, then the same command again:\n\n  ${commandFor(names)}\n`,
    );
  }
  await aptInstall(names, { mayFail: false });
}

/** Tries; where an engine cannot be had it says so, and goes on. */
export async function installEngines(names) {
  const without = (why) =>
    say(`WITHOUT ${names.join(", ")}: ${why}. The tests that need it are skipped, and say so.`);
  if (!haveApt()) return without("this machine has no apt-get");
  if (process.getuid?.() !== 0) return without(`it needs root: ${commandFor(names)}`);
  if (!(await aptInstall(names, { mayFail: true }))) without("apt-get could not install it");
}

export function haveApt() {
  return spawnSync("apt-get", ["--version"]).status === 0;
}

function commandFor(names) {
  const install = `apt-get update && apt-get install -y --no-install-recommends ${names.join(" ")}`;
  const become = existsSync("/usr/bin/sudo") ? "sudo sh -c" : "su -c";
  return `${become} '${install}'`;
}

/** @returns {Promise<boolean>} false where it failed and may fail */
async function aptInstall(names, { mayFail }) {
  const progress = new Progress("Debian packages", names.join(" "));
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const apt = (args, doing, mustFinish) =>
    run("apt-get", ["-o", "DPkg::Lock::Timeout=120", "-o", "APT::Status-Fd=3", "-qq", ...args], {
      cwd: "/",
      env,
      mustFinish,
      mayFail,
      hint: "Is the network there, and does `apt-get update` work? Then run the same command again.",
      onStatus: (line) => {
        // dlstatus:item:percent:text and pmstatus:package:percent:text, as apt's README.progress-reporting has it.
        const percent = /^(?:dl|pm)status:[^:]*:([\d.]+):/.exec(line)?.[1];
        if (percent !== undefined) progress.update(`${doing} ${Math.round(Number(percent))} %`);
      },
    });
  const install = ["install", "-y", "--no-install-recommends", ...names];
  if (!(await apt(["update"], "lists", false))) return false;
  if (!(await apt([...install, "--download-only"], "downloading", false))) return false;
  // An installation that was cut off earlier is brought to its end, else apt refuses to work.
  if (readdirSync("/var/lib/dpkg/updates").length > 0) {
    await run("dpkg", ["--configure", "-a"], { cwd: "/", env, mustFinish: true });
  }
  const installed = await withServicesBlocked(() => apt(install, "installing", true));
  if (installed) progress.done();
  return installed;
}

/**
 * A package must not start its service: nats-server would take a port that somebody else wants.
 * invoke-rc.d(8): exit code 101 of this file forbids it. One that is there already stays.
 */
async function withServicesBlocked(install) {
  const policy = "/usr/sbin/policy-rc.d";
  if (existsSync(policy)) return install();
  // A failure ends the program without coming back here.
  const unblock = () => rmSync(policy, { force: true });
  process.once("exit", unblock);
  writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    return await install();
  } finally {
    unblock();
    process.off("exit", unblock);
  }
}

function installed(name) {
  const asked = spawnSync("dpkg-query", ["-W", "-f=${Status}", name], { encoding: "utf8" });
  return asked.status === 0 && asked.stdout.includes("ok installed");
}
