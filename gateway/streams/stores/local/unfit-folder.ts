/** Whether a folder of streams can be checked now, and what of it may be read at all. */
import type { Stats } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeError, HeadwaterError } from "../../../../runtime/errors.ts";
import { checkFormat, StreamFormatMissingError } from "./data-format.ts";

const NO_ROOM: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);
const FOREIGN: ReadonlySet<string> = new Set(["EACCES", "EPERM"]);
/** Beside `format.json`. */
const PARTS: readonly string[] = ["streams.json", "meta", "logs"];

/** The folder cannot be checked now. */
export class VerifyRefusedError extends HeadwaterError {
  constructor(message: string, hint: string) {
    super("VERIFY_REFUSED", { message, hint });
  }
}

export async function refuseUnfit(dir: string): Promise<void> {
  const names = await readdir(dir).catch((error: unknown): string[] => {
    refuseForeign(error);
    return [];
  });
  if (names.includes("format.json")) await checkFormat(dir).catch(throwReadable);
  else if (names.some((name) => PARTS.includes(name))) throw new StreamFormatMissingError(dir);
  else throw new VerifyRefusedError(`${dir} holds no streams`, "give the gateway's dataDir");
  if (await isLocked(join(dir, "meta", "LOCK"))) {
    throw new VerifyRefusedError(`${dir} is in use`, "stop the gateway that has it open, and try again");
  }
}

/** LevelDB holds a POSIX lock on this file while it is open; proc(5) lists them by inode. */
async function isLocked(path: string): Promise<boolean> {
  const file = await stat(path).catch(() => undefined);
  if (file === undefined) return false;
  const locks = await readFile("/proc/locks", "utf8").catch(() => undefined);
  if (locks === undefined) {
    throw new VerifyRefusedError(
      `/proc/locks cannot be read, so nobody can tell whether ${path} is in use`,
      "check the folder on Linux",
    );
  }
  for (const line of locks.split("\n")) {
    const [, pid, inode] = / POSIX .* WRITE (-?\d+) \S+:(\d+) /.exec(line) ?? [];
    if (Number(inode) === file.ino && (await hasOpen(pid!, file))) return true;
  }
  return false;
}

/**
 * Another disk has a file of the same number, and what the list calls a disk is not what stat() calls it on each
 * file system; so the process is asked for its files. Where it may not be asked, it is taken to have this one.
 */
async function hasOpen(pid: string, { dev, ino }: Stats): Promise<boolean> {
  const folder = join("/proc", pid, "fd");
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    // One that has just ended holds nothing more; one that we cannot see at all has no number here.
    return (error as NodeJS.ErrnoException).code !== "ENOENT" || Number(pid) <= 0;
  }
  const files = await Promise.all(names.map((name) => stat(join(folder, name)).catch(() => undefined)));
  return files.some((file) => file?.dev === dev && file.ino === ino);
}

/** What is another user's is not damaged. @throws VerifyRefusedError if `error` says that it is */
export function refuseForeign(error: unknown): void {
  const { code, path } = error as NodeJS.ErrnoException;
  if (!FOREIGN.has(code ?? "")) return;
  throw new VerifyRefusedError(
    `${path} cannot be read by this user: ${code}`,
    "check it as root, or as the user that owns the folder",
  );
}

function throwReadable(error: unknown): never {
  refuseForeign(error);
  throw error;
}

/** Empty where there is no such folder. @throws VerifyRefusedError */
export function listReadable(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: unknown): string[] => {
    refuseForeign(error);
    return [];
  });
}

/**
 * A file, or a folder of files; nothing where it is missing or its disk fails. The copy may be written, also where
 * the original may not. @throws VerifyRefusedError
 */
export async function copyReadable(from: string, to: string): Promise<void> {
  try {
    if (!(await stat(from)).isDirectory()) return await writeFile(to, await readFile(from));
    await mkdir(to);
    for (const name of await readdir(from)) await copyReadable(join(from, name), join(to, name));
  } catch (error) {
    refuseForeign(error);
    if (NO_ROOM.has((error as NodeJS.ErrnoException).code ?? "")) refuseCopy(error);
    if (error instanceof HeadwaterError) throw error;
  }
}

export function refuseCopy(cause: unknown): never {
  const message = `no copy of the metadata can be made in ${tmpdir()}: ${describeError(cause)}`;
  throw new VerifyRefusedError(message, "set TMPDIR to a folder that is there and has room, and try again");
}
