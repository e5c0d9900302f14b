/** Keeps what was found damaged as it was, for whoever wants to look at it: `damaged-<n>`, the newest two. */
import { copyFile, link, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { syncFolder } from "../../../runtime/durable.ts";

const KEPT = 2;
const NAME = /^damaged-(\d+)$/;

/**
 * @param paths files, or folders with files in them or in folders of theirs; those that are not there are passed over
 * @returns the folder; what appears under its name is complete
 */
export async function keepAside(dir: string, paths: readonly string[]): Promise<string> {
  const making = join(dir, "damaged.making");
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { mode: 0o700 });
  for (const path of paths) await copy(path, join(making, basename(path)));
  const kept = (await readdir(dir)).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  kept.sort((a, b) => a - b);
  const folder = join(dir, `damaged-${(kept.at(-1) ?? 0) + 1}`);
  await rename(making, folder);
  await syncFolder(dir);
  for (const number of kept.slice(0, Math.max(0, kept.length - KEPT + 1))) {
    await rm(join(dir, `damaged-${number}`), { recursive: true });
  }
  return folder;
}

/** A database's log is linked: it is never written to again. All else may be, and is copied. */
async function copy(from: string, to: string): Promise<void> {
  const found = await stat(from).catch(() => undefined);
  if (found === undefined) return;
  if (found.isDirectory()) {
    await mkdir(to);
    for (const name of await readdir(from)) await copy(join(from, name), join(to, name));
    return;
  }
  // A file system without hard links, such as FAT.
  const linked = from.endsWith(".log")
    ? await link(from, to).then(
        () => true,
        () => false,
      )
    : false;
  // One that cannot be read at all cannot be kept either.
  if (!linked) await copyFile(from, to).catch(() => undefined);
}
