/**
 * The files of one log in the order in which they were written, and where in it a place is. As long as
 * nothing is removed, what is to be read next is the rest of the file that holds the place, then every
 * file behind that one:
 *
 *   app.log.2.gz → app.log.1 → app.log
 *                  └ place
 *
 * A file holds a place when it begins, and goes on before the place, as it did when the place was noted.
 * Where several do, a copy was made of the file; the file itself is preferred.
 */
import { type FilePlace, type FoundFile, foundHoldsPlace, openFound, samplesAt } from "./file-place.ts";

/** So many compressed files are looked into for a place: each has to be decompressed up to it. */
const MAX_DECOMPRESSED = 20;

/**
 * Without what was rotated with nothing in it: it adds nothing, and its time may be that of the copy
 * that was made before it was emptied.
 */
export function filled(files: readonly FoundFile[], path: string): FoundFile[] {
  return files.filter((file) => file.size > 0 || file.path === path);
}

/** @throws FileMoved */
export async function fileOfPlace(
  files: readonly FoundFile[],
  place: FilePlace,
): Promise<FoundFile | undefined> {
  // With nothing read of it there is nothing to know a copy by.
  if (place.offset === 0)
    return files.find(({ id, bornNs }) => id === place.id && String(bornNs) === place.bornNs);
  const isSame = ({ id }: FoundFile): boolean => id === place.id;
  const mayBeCopy = (file: FoundFile): boolean => {
    if (isSame(file) || file.bornNs < BigInt(place.bornNs)) return false;
    // What was read to its end and rotated is not what is written to now, however alike they begin.
    return place.done !== true || file.path !== place.path;
  };
  const newestFirst = files.filter(mayBeCopy).reverse();
  const candidates = [
    ...files.filter(isSame),
    ...newestFirst.filter(({ compressed }) => !compressed),
    ...newestFirst.filter(({ compressed }) => compressed).slice(0, MAX_DECOMPRESSED),
  ];
  for (const file of candidates) if (await foundHoldsPlace(file, place)) return file;
  return undefined;
}

/**
 * The first file of which nothing was read: the one behind the file that holds the place. Where none
 * does, the first that was written to after it.
 * @throws FileMoved
 */
export async function fileAfter(
  files: readonly FoundFile[],
  place: FilePlace,
): Promise<FoundFile | undefined> {
  const held = await fileOfPlace(files, place);
  if (held !== undefined) {
    let next = files.indexOf(held) + 1;
    while (await endsAt(files[next], place)) next++;
    return files[next];
  }
  for (const file of files) {
    if (file.path === place.path || file.id === place.next) return file;
    if (file.modifiedNs > BigInt(place.modifiedNs) && !(await isPartOf(file, place))) return file;
  }
  return undefined;
}

/**
 * True for a copy that someone made of the file at the place, for keeping, before that was renamed: all of
 * it was read. What the log is written to is none, however alike it is.
 */
async function endsAt(file: FoundFile | undefined, place: FilePlace): Promise<boolean> {
  if (file === undefined || file.path === place.path || file.compressed) return false;
  if (place.offset === 0 || file.size !== place.offset || file.id === place.next) return false;
  return file.bornNs >= BigInt(place.bornNs) && foundHoldsPlace(file, place);
}

/** True for a copy that was made before the place was reached: all of it was read. */
async function isPartOf(file: FoundFile, place: FilePlace): Promise<boolean> {
  if (place.done || file.compressed || file.size === 0 || file.size > place.offset) return false;
  return foundHoldsPlace(file, { ...place, offset: 0, before: "" });
}

/**
 * True when the place was in a copy of this file, which was not truncated yet: it goes on where the copy
 * ends. A copy is younger than its original, while what is written after a rotation is younger than
 * what was rotated.
 */
export async function goesOnFrom(place: FilePlace, file: FoundFile): Promise<boolean> {
  if (place.offset === 0 || file.compressed || file.bornNs > BigInt(place.bornNs)) return false;
  return foundHoldsPlace(file, place);
}

/**
 * The end of what is there and is not to be read: all before `next`, or the whole list without it.
 * What comes to be behind that is unread.
 */
export async function endBefore(
  files: readonly FoundFile[],
  next: FoundFile | undefined,
  { path, timeUs }: Pick<FilePlace, "path" | "timeUs">,
): Promise<FilePlace> {
  const last = files[(next === undefined ? files.length : files.indexOf(next)) - 1];
  const after = next === undefined ? {} : { next: next.id };
  const none = { path, offset: 0, head: "", before: "", timeUs, done: true, ...after };
  if (last === undefined) return { ...none, id: "", bornNs: "0", modifiedNs: "0" };
  const { id, bornNs, modifiedNs, size, compressed } = last;
  const known = { ...none, id, bornNs: String(bornNs), modifiedNs: String(modifiedNs) };
  if (compressed) return known;
  const file = await openFound(last);
  try {
    return { ...known, offset: size, ...(await samplesAt(file, size)) };
  } finally {
    await file.close();
  }
}
