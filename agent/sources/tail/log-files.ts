/**
 * The files of one log, as they are looked up while it is followed: which one is read next, opened.
 * Remembers nothing; what was read so far is given as a place.
 *
 * A rotator may come between any two looks, so an answer may be old by the time it is acted on. Two
 * rules make that harmless. What is opened at its start is looked up again once its content was looked
 * at (`unreadBefore`): only what was there before the content can lie between. And what is opened at a
 * place keeps the samples of that place, which the first reading compares.
 */
import { pause } from "../../../runtime/backoff.ts";
import { fileAfter, fileOfPlace, filled, goesOnFrom } from "./file-chain.ts";
import { type FilePlace, type FoundFile, findFile, steadily } from "./file-place.ts";
import { OpenFile, type Position, START } from "./open-file.ts";
import { rotatedFiles } from "./rotated-files.ts";
import type { TailedFileOptions } from "./tail-parts.ts";

/** A copy is made within so long, or is too large to be made in a moment. */
const LOOK_AGAIN_MS = 200;

export class LogFiles {
  readonly #options: Pick<TailedFileOptions, "path" | "company" | "clock">;

  constructor(options: Pick<TailedFileOptions, "path" | "company" | "clock">) {
    this.#options = options;
  }

  /** Oldest first; the one that is written to is the last, if it is there. @throws FileMoved */
  async list(): Promise<FoundFile[]> {
    const { path, company } = this.#options;
    return filled(await rotatedFiles(path, company?.isOther), path);
  }

  /** The one that is written to. */
  current(): Promise<FoundFile | undefined> {
    return findFile(this.#options.path);
  }

  /** @param from a place in it, or its start @throws FileMoved */
  open(found: FoundFile, from: Position): Promise<OpenFile> {
    return OpenFile.open(found, from, this.#options.clock.monotonicMs());
  }

  /** Looked for twice: what is not found may be in a copy that was not whole yet when it was listed. */
  async holder(place: FilePlace, not?: OpenFile): Promise<OpenFile | undefined> {
    const look = async (): Promise<OpenFile | undefined> => {
      const files = (await this.list()).filter(({ id }) => id !== not?.id);
      const found = await fileOfPlace(files, place);
      return found && this.open(found, place);
    };
    const held = await steadily(look);
    if (held !== undefined) return held;
    await pause(LOOK_AGAIN_MS);
    return steadily(look);
  }

  /** Neither the file that was left nor the one that came next is there: nobody knows what was in that one. */
  isMissed(left: FilePlace): Promise<boolean> {
    return steadily(async () => {
      if (left.next === undefined || left.id === "") return false;
      const { path, company } = this.#options;
      const files = await rotatedFiles(path, company?.isOther);
      if (files.some(({ id }) => id === left.next)) return false;
      return (await fileOfPlace(files, left)) === undefined;
    });
  }

  /**
   * What is to be read before a file of which nothing was read yet: one that was rotated meanwhile. Such
   * a file has no sample to know its copy by: after `copytruncate` it looks as if nothing had been in
   * it. Asked after it was looked at, so that nothing can come between.
   */
  unreadBefore(file: OpenFile, left: FilePlace | undefined): Promise<OpenFile | undefined> {
    return steadily(async () => {
      if (left === undefined || file.isAt(left)) return undefined;
      const files = await this.list();
      const isListed = files.some(({ id }) => id === file.id);
      // A copy that was not whole yet when it was left, or a program that wrote to the old file for longer.
      const grown = isListed ? await fileOfPlace(files, left) : undefined;
      if (grown !== undefined && !grown.compressed && grown.size > left.offset) return this.open(grown, left);
      const next = await fileAfter(files, left);
      if (next === undefined || next.id === file.id) return undefined;
      // It was renamed to nothing that we know, or removed: then what is younger comes after it.
      const isOlder = next.path !== this.#options.path && next.modifiedNs < (await file.writtenNs());
      return isListed || isOlder ? this.open(next, START) : undefined;
    });
  }

  /** The first of the files that were rotated after this one, else the new one. */
  following(file: OpenFile, left: FilePlace | undefined): Promise<OpenFile | undefined> {
    return steadily(async () => {
      const { path, clock } = this.#options;
      const files = await this.list();
      const place = file.place(path, clock.nowUs());
      const next = await fileAfter(files, (file.isUnread && left) || { ...place, done: true });
      if (next === undefined) return undefined;
      if (next.id !== file.id) return this.open(next, (await goesOnFrom(place, next)) ? place : START);
      // Nothing of it could be read, as its only line has no end. It gets none, unless it is copied just now.
      const behind = files[files.indexOf(next) + 1];
      if (file.size === 0 || behind === undefined) return undefined;
      return (await goesOnFrom(await file.end(path, clock.nowUs()), behind))
        ? undefined
        : this.open(behind, START);
    });
  }
}
