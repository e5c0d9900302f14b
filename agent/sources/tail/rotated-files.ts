/**
 * What a log file was rotated to, by its name:
 *
 *   app.log.1  app.log-20261121  app.log.old          behind the whole name
 *   app.1.log  app-2026-11-21.log  app-20261121.2.log  before its ending
 *
 * and each of them with .gz behind it. Other compressions cannot be read and are not listed.
 */
import { readdir } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { FileMoved, type FoundFile, findFile, steadily } from "./file-place.ts";

const UNREADABLE = /\.(bz2|xz|zst|lz4|zip)$/;
/** A folder with more rotated files is none of a log. */
const MAX_SIBLINGS = 1_000;
/** A date has so many digits; with fewer it may be the number of another program's log. */
const DATE_DIGITS = 6;

/**
 * Oldest first, then `path` itself; each file once. Listed until two lists in a row agree: a rotation
 * renames one file after another, and who looks meanwhile sees one twice and another not at all.
 * @param isOther followed by itself, whatever its name looks like
 * @throws FileMoved when that does not come to an end
 */
export async function rotatedFiles(
  path: string,
  isOther: (path: string) => boolean = () => false,
): Promise<FoundFile[]> {
  let before: string | undefined;
  return steadily(async () => {
    const found = await listed(path, isOther);
    const names = found.map(({ path: name, id }) => `${name}\0${id}`).join("\0");
    const steady = names === before;
    before = names;
    if (!steady) throw new FileMoved(path);
    const current = found.at(-1)?.path === path ? found.pop() : undefined;
    // Two names of one file: it is read by the newer.
    const once = new Map(found.map((file) => [file.id, file]));
    if (current !== undefined) once.delete(current.id);
    return [...[...once.values()].sort(byAge), ...(current === undefined ? [] : [current])];
  });
}

/** As they are met; `path` is the last. */
async function listed(path: string, isOther: (path: string) => boolean): Promise<FoundFile[]> {
  const folder = dirname(path);
  const name = basename(path);
  const names = (await readdir(folder).catch(() => [])).filter((one) => isRotationOf(name, one)).sort();
  const paths = names.map((one) => join(folder, one)).filter((one) => !isOther(one));
  const found: FoundFile[] = [];
  for (const one of [...paths.slice(0, MAX_SIBLINGS), path]) {
    // Until the compressor is done both are there, and the compressed one is not whole.
    const plain = one.endsWith(".gz") && paths.includes(one.slice(0, -".gz".length));
    const file = plain ? undefined : await findFile(one);
    if (file !== undefined) found.push(file);
  }
  return found;
}

/** @param name of a log, without its folder */
export function isRotationOf(name: string, other: string): boolean {
  if (other === name || UNREADABLE.test(other)) return false;
  if (other.startsWith(name)) return ".-_~".includes(other[name.length]!);
  const ending = extname(name);
  const stem = name.slice(0, name.length - ending.length);
  const plain = other.endsWith(".gz") ? other.slice(0, -".gz".length) : other;
  if (ending === "" || !plain.startsWith(stem) || !plain.endsWith(ending)) return false;
  const between = plain.slice(stem.length, plain.length - ending.length);
  const digits = between.replace(/\D/g, "").length;
  return /^\.\d+$/.test(between) || (/^[._-]\d[\d._:TZ-]*$/.test(between) && digits >= DATE_DIGITS);
}

/** Renaming leaves the time of the last write alone, and so do gzip and its like. */
function byAge(a: FoundFile, b: FoundFile): number {
  if (a.modifiedNs !== b.modifiedNs) return a.modifiedNs < b.modifiedNs ? -1 : 1;
  // The higher number is the older, the higher date the younger.
  const byName = a.path.localeCompare(b.path, "en", { numeric: true });
  const digits = Math.min(...[a, b].map(({ path }) => basename(path).replace(/\D/g, "").length));
  return digits >= DATE_DIGITS ? byName : -byName;
}

/**
 * The log that a name belongs to when it only adds a number, a date or the like to one that is
 * followed: of the files that a pattern matches it is then no log of its own. Undefined for one that is.
 */
export function rotationBase(path: string, isFollowed: (path: string) => boolean): string | undefined {
  for (let base = path; ; ) {
    const match = /^(.*[^/])(?:[._-]\d[\dTZ:]*|[._-](?:old|bak)|~)$/.exec(base);
    if (match === null) break;
    base = match[1]!;
    if (isFollowed(base)) return base;
  }
  const ending = extname(path);
  const stem = basename(path, ending);
  for (const { index } of stem.matchAll(/(?<=.)[._-]\d/g)) {
    const name = `${stem.slice(0, index)}${ending}`;
    const base = join(dirname(path), name);
    if (isRotationOf(name, basename(path)) && isFollowed(base)) return base;
  }
  return undefined;
}
