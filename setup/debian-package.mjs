/**
 * Makes one Debian package of a folder tree, to the byte the same from the same input: owners, modes,
 * times and order do not depend on the machine.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { run } from "./command.mjs";

/** The tree of a package while it is filled. Modes are 0755 for folders and programs, else 0644. */
export class PackageTree {
  /** @param {string} folder empty */
  constructor(folder) {
    this.folder = folder;
    this.private = new Set();
  }

  write(path, content, mode = 0o644) {
    const file = join(this.folder, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    chmodSync(file, mode);
  }

  copy(from, path, mode = 0o644) {
    this.write(path, readFileSync(from), mode);
  }

  /** As Debian's policy wants documentation: gzip without name and time in it. */
  writeGzipped(path, content) {
    this.write(path, gzipSync(content, { level: 9 }));
  }

  /** A folder that only root reads. */
  makePrivateFolder(path) {
    mkdirSync(join(this.folder, path), { recursive: true });
    this.private.add(path);
  }

  /** Bytes of all files. */
  get bytes() {
    return this.#entries().reduce(
      (sum, path) => sum + (this.#stat(path).isFile() ? this.#stat(path).size : 0),
      0,
    );
  }

  /**
   * @param {{control: string, scripts?: Record<string, string>, conffiles?: string[]}} about
   * @param {{epochSeconds: number, compression: "xz" | "none"}} how
   */
  async build(about, output, { epochSeconds, compression }) {
    const { control, scripts = {}, conffiles = [] } = about;
    const digests = this.#entries()
      .filter((path) => this.#stat(path).isFile() && !conffiles.includes(`/${path}`))
      .map(
        (path) =>
          `${createHash("md5")
            .update(readFileSync(join(this.folder, path)))
            .digest("hex")}  ${path}\n`,
      );
    const kibibytes = Math.ceil(this.bytes / 1_024);
    this.write("DEBIAN/control", `${control.trimEnd()}\nInstalled-Size: ${kibibytes}\n`);
    this.write("DEBIAN/md5sums", digests.join(""));
    if (conffiles.length > 0) this.write("DEBIAN/conffiles", `${conffiles.join("\n")}\n`);
    for (const [name, text] of Object.entries(scripts)) this.write(`DEBIAN/${name}`, text, 0o755);
    // Deepest first: a folder's time changes with what is made in it.
    for (const path of [...this.#entries().reverse(), ""]) {
      const file = join(this.folder, path);
      if (lstatSync(file).isDirectory()) chmodSync(file, this.private.has(path) ? 0o700 : 0o755);
      lutimesSync(file, epochSeconds, epochSeconds);
    }
    // One thread: with several, xz's output depends on how many there are.
    const how = compression === "xz" ? ["-Zxz", "-z6", "--threads-max=1"] : ["-Znone"];
    await run("dpkg-deb", ["--root-owner-group", ...how, "--build", this.folder, output], {
      cwd: dirname(output),
      env: { ...process.env, SOURCE_DATE_EPOCH: String(epochSeconds) },
      hint: "dpkg-deb is in Debian's package dpkg.",
    });
  }

  #stat(path) {
    return lstatSync(join(this.folder, path));
  }

  /** Everything in the tree, relative and sorted, without what dpkg itself keeps. */
  #entries(below = "") {
    return readdirSync(join(this.folder, below), { withFileTypes: true })
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap((entry) => {
        const path = relative(this.folder, join(this.folder, below, entry.name));
        return entry.isDirectory() ? [path, ...this.#entries(path)] : [path];
      });
  }
}

/** Seconds since 1970 that every file carries: SOURCE_DATE_EPOCH, else the last commit's time. */
export function sourceEpoch(root) {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined && /^\d{1,12}$/.test(given)) return Number(given);
  try {
    const options = { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
    return Number(execFileSync("git", ["log", "-1", "--format=%ct"], options).trim());
  } catch {
    // Not a clone: 1980, the first year that every archive format knows.
    return 315_532_800;
  }
}
