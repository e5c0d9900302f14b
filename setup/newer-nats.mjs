/**
 * The nats-server of suites and faults. Debian 12's 2.9.10 loses acknowledged messages now and then where a node is killed
 * (docs/design/0016-jetstream-store.md), so Debian 13's is taken from the machine's own mirror, into a folder
 * of this checkout; nothing of the system changes. Where it cannot be had, the installed one is used, and that is said.
 */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./command.mjs";
import { haveApt } from "./packages.mjs";
import { filesBelow, root } from "./prepare.mjs";
import { say } from "./terminal.mjs";

const SOUND = [2, 10];
const SOURCES = "/etc/apt/sources.list";

/** Puts it before the others in PATH. */
export async function preferSoundNats() {
  if (isSound(versionOf("nats-server"))) return;
  const folder = join(root, ".data", "nats-server");
  if (!isSound(versionOf(join(folder, "nats-server"))) && !(await fetchInto(folder))) {
    const installed = versionOf("nats-server")?.join(".") ?? "none";
    say(`nats-server of Debian 13 cannot be had; the installed one is used: ${installed}`);
    return;
  }
  process.env.PATH = `${folder}:${process.env.PATH}`;
}

function versionOf(program) {
  const { stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  return /v(\d+)\.(\d+)\.(\d+)/
    .exec(stdout ?? "")
    ?.slice(1)
    .map(Number);
}

function isSound(version) {
  if (version === undefined) return false;
  return version[0] > SOUND[0] || (version[0] === SOUND[0] && version[1] >= SOUND[1]);
}

/** @returns {Promise<boolean>} whether it is there now */
async function fetchInto(folder) {
  if (!haveApt()) return false;
  const place = mkdtempSync(join(tmpdir(), "headwater-newer-nats-"));
  try {
    const sources = join(place, "sources");
    for (const part of [sources, join(place, "lists/partial"), join(place, "cache/archives/partial")]) {
      mkdirSync(part, { recursive: true });
    }
    if (!copySources(sources)) return false;
    const settings = {
      "Dir::Etc::sourcelist": "/dev/null",
      "Dir::Etc::sourceparts": sources,
      "Dir::State::lists": join(place, "lists"),
      "Dir::Cache": join(place, "cache"),
      // It may not read a folder of ours.
      "APT::Sandbox::User": "",
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    const steps = { cwd: place, mayFail: true };
    if (!(await run("apt-get", ["-qq", ...options, "update"], steps))) return false;
    if (!(await run("apt-get", ["-qq", ...options, "download", "nats-server"], steps))) return false;
    const [name] = filesBelow(place, /\.deb$/);
    if (!(await run("dpkg-deb", ["-x", name, "unpacked"], steps))) return false;
    mkdirSync(folder, { recursive: true });
    // Two set-ups at once both leave a whole one.
    const made = join(folder, `nats-server.${process.pid}`);
    copyFileSync(join(place, "unpacked/usr/sbin/nats-server"), made);
    renameSync(made, join(folder, "nats-server"));
    return isSound(versionOf(join(folder, "nats-server")));
  } catch {
    return false;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

/** The machine's sources of Debian 12, as those of Debian 13. @returns whether there are any */
function copySources(folder) {
  const files = [SOURCES].filter(existsSync).concat(filesBelow(`${SOURCES}.d`, /\.(list|sources)$/));
  let copied = 0;
  for (const file of files) {
    const text = readFileSync(file, "utf8");
    const newer = text.replace(/(?<![\w-])bookworm/g, "trixie");
    if (newer === text) continue;
    writeFileSync(join(folder, `${copied++}-${file.split("/").pop()}`), newer);
  }
  return copied > 0;
}
