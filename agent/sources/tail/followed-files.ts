/**
 * All files that a pattern matches, each followed by itself: with its own place, its own back-off, and
 * one window in turn. At most `maxFiles` are open; those longest quiet make room and are opened again
 * when they change.
 *
 * What is a rotation of another by its name is read by that one alone, whatever the pattern says. One
 * that was renamed to another name that matches is known by its inode and not read twice. What was left
 * at which place, so that this can be told, is a mark of its own (`file/<source>/left/…`), stored with
 * the place of what comes next.
 */
import { relative } from "node:path";
import { pause } from "../../../runtime/backoff.ts";
import type { Mark } from "../../buffer/record-buffer.ts";
import type { SourceReport } from "../source.ts";
import { type Life, Supervisor } from "../supervisor.ts";
import { fileAfter, fileOfPlace, filled } from "./file-chain.ts";
import { FileMarks, MAX_GONE, mayBeRenamed, oldestGone } from "./file-marks.ts";
import {
  encodePlace,
  endOf,
  FileMoved,
  type FilePlace,
  type FoundFile,
  findFile,
  foundHoldsPlace,
  placeKey,
} from "./file-place.ts";
import { FolderNames } from "./folder-names.ts";
import { fixedFolder, matchingPaths } from "./glob.ts";
import { rotatedFiles, rotationBase } from "./rotated-files.ts";
import type { Seen, TailParts } from "./tail-parts.ts";
import { TailedFile } from "./tailed-file.ts";

/** More files than these are not looked at. */
const MAX_MATCHES = 2_000;
/** Places of files that have no name of ours for now; the oldest is forgotten first. */
const MAX_LEFT = 500;
/** Some more places of files that are gone, before the oldest of them are looked for. */
const SPARE_GONE = 50;
/** A file makes room for another once it was quiet for so long. */
const MIN_QUIET_MS = 1_000;
/** Looking for new files may take one part in so many of the time. */
const SCAN_SHARE = 20;
const NONE = Buffer.alloc(0);

interface Followed {
  readonly tail: TailedFile;
  readonly supervisor: Supervisor;
}

export class FollowedFiles {
  readonly #parts: TailParts;
  readonly #marks: FileMarks;
  readonly #followed = new Map<string, Followed>();
  /** By path, as they were when they made room. */
  readonly #resting = new Map<string, Seen>();
  /** By the name of the mark. */
  readonly #left = new Map<string, FilePlace>();
  /** All that were ever followed and have a place: their rotations are none of their own. */
  readonly #known = new Set<string>();
  /** Gone, with something left to read under other names. */
  readonly #absent = new Set<string>();
  /** Gone, with nothing left to read when last looked at; that longest ago is the first. */
  readonly #gone = new Set<string>();
  /** Places, by their keys, that went to another path. */
  readonly #moved = new Set<string>();
  /** Files in which no place was found, by path: not looked into again while they wait. */
  readonly #strangers = new Map<string, string>();
  /** Of what matched last, all that is no rotation of another. */
  #own: ReadonlySet<string> = new Set();
  #cut = false;
  #waiting = 0;

  constructor(parts: TailParts) {
    this.#parts = parts;
    this.#marks = new FileMarks(parts.buffer, parts.config.name);
  }

  /** Until the source closes. */
  async live(life: Life): Promise<void> {
    const { config, clock, buffer } = this.#parts;
    try {
      await this.#recall();
      // What was there before the source was begun at all may be skipped; what comes later never.
      const begun = await buffer.mark(this.#marks.name);
      if (config.from === "end" && begun?.toString() !== config.path) await this.#beginAtEnds();
      await this.#freshFiles();
      const names = this.#folderNames();
      for (const path of [...this.#known])
        if (this.#own.has(path)) this.#gone.add(path);
        else await this.#lookForRest(path, names);
      while (!life.signal.aborted) {
        const startedMs = clock.monotonicMs();
        await this.#scan(life);
        if (this.#followed.size === 0) life.idle();
        else life.running();
        const tookMs = clock.monotonicMs() - startedMs;
        await pause(Math.max(4 * config.pollMs, SCAN_SHARE * tookMs), life.signal);
      }
    } finally {
      await this.#closeAll();
    }
  }

  /** One write for all of them: from then on a new file is read from its start. */
  async #beginAtEnds(): Promise<void> {
    const { config, buffer, clock, window } = this.#parts;
    const { paths } = await matchingPaths(config.path, MAX_MATCHES);
    const marks: Mark[] = [];
    const isKnown = (path: string): boolean => paths.includes(path);
    for (const path of paths) {
      const found = await findFile(path).catch(() => undefined);
      const source = this.#marks.nameOf(path);
      if (found === undefined || found.compressed || rotationBase(path, isKnown) !== undefined) continue;
      if ((await buffer.mark(source)) !== undefined) continue;
      const end = await endOf(found, window).catch(() => undefined);
      // Of what has no whole line yet nothing is skipped.
      if (end === undefined || end.offset === 0) continue;
      const { id, bornNs, modifiedNs } = found;
      const times = { bornNs: String(bornNs), modifiedNs: String(modifiedNs), timeUs: clock.nowUs() };
      marks.push({ source, value: encodePlace({ path, id, ...end, ...times }) });
    }
    await buffer.setMarks([...marks, { source: this.#marks.name, value: Buffer.from(config.path) }]);
  }

  async #recall(): Promise<void> {
    const { buffer } = this.#parts;
    this.#left.clear();
    for (const [name, place] of await this.#marks.places("left")) this.#left.set(name, place);
    const gone: { source: string; timeUs: number }[] = [];
    this.#known.clear();
    for (const [source, { was, path, timeUs }] of await this.#marks.places("at")) {
      if (was !== undefined) this.#moved.add(was);
      this.#known.add(path);
      if ((await findFile(path).catch(() => undefined)) === undefined) gone.push({ source, timeUs });
    }
    const forgotten = oldestGone(gone).map(({ source }) => ({ source, value: NONE }));
    if (forgotten.length > 0) await buffer.setMarks(forgotten);
  }

  /** Where each day, or each minute, has a file of its own, their places would become ever more. */
  async #forgetGone(): Promise<void> {
    if (this.#gone.size <= MAX_GONE + SPARE_GONE) return;
    const { buffer } = this.#parts;
    const gone: { path: string; source: string; timeUs: number }[] = [];
    for (const path of this.#gone) {
      if (this.#own.has(path)) continue;
      const source = this.#marks.nameOf(path);
      gone.push({ path, source, timeUs: (await this.#marks.placeOf(path))?.timeUs ?? 0 });
    }
    const names = this.#folderNames();
    const forgotten: typeof gone = [];
    // What is left of one under other names would be read anew.
    for (const one of oldestGone(gone))
      if (!(await names.mayHold(one.path).catch(ifMoved))) forgotten.push(one);
    await buffer.setMarks(forgotten.map(({ source }) => ({ source, value: NONE })));
    for (const { path } of forgotten) {
      this.#gone.delete(path);
      this.#known.delete(path);
    }
  }

  /**
   * What was rotated and has no new file yet is read all the same.
   * @param names where many are looked for: most have nothing beside them
   */
  async #lookForRest(path: string, names?: FolderNames): Promise<void> {
    const place = await this.#marks.placeOf(path);
    if (place === undefined) return;
    const isBare = names !== undefined && !(await names.mayHold(path).catch(ifMoved));
    if (!isBare && (await this.#hasRest(place).catch(ifMoved))) this.#absent.add(path);
    else this.#gone.add(path);
  }

  #folderNames(): FolderNames {
    return new FolderNames((other) => this.#own.has(other));
  }

  /** Its last file may have been rotated by then, or still be written to. One at a time, as they may be many. */
  async #lookAgain(): Promise<void> {
    // One that is there again stays: it may be gone once more before it is followed.
    const path = [...this.#gone].find((one) => !this.#own.has(one));
    if (path === undefined) return;
    this.#gone.delete(path);
    await this.#lookForRest(path);
  }

  async #hasRest(place: FilePlace): Promise<boolean> {
    const { path } = place;
    const files = filled(await rotatedFiles(path, (other) => this.#own.has(other)), path);
    if ((await fileAfter(files, place)) !== undefined) return true;
    const held = await fileOfPlace(files, place);
    if (held === undefined) return false;
    return held.compressed ? place.done !== true : held.size > place.offset;
  }

  async #scan(life: Life): Promise<void> {
    const { config, meters } = this.#parts;
    const fresh = await this.#freshFiles();
    // All of them before any is begun: who was renamed over the night must not be taken for lost.
    const wanted: FoundFile[] = [];
    for (const found of fresh) {
      // One that is renamed just now is looked at the next time.
      if (await this.#adopted(found).catch(unlessMoved)) wanted.push(found);
    }
    this.#makeRoom(wanted.length + this.#absent.size);
    // What was written last is wanted first.
    wanted.sort((a, b) => (a.modifiedNs > b.modifiedNs ? -1 : 1));
    for (const { path, id } of wanted) {
      if (this.#followed.size >= config.maxFiles || life.signal.aborted) break;
      if (!this.#isOpen(id)) this.#follow(path, life);
    }
    for (const path of this.#absent) {
      if (this.#followed.size >= config.maxFiles || life.signal.aborted) break;
      this.#follow(path, life);
    }
    const waiting = wanted.filter(({ path }) => !this.#followed.has(path)).length + this.#absent.size;
    if (waiting > this.#waiting)
      meters.fault(`${waiting} files wait, as more than ${config.maxFiles} are written at once`);
    this.#waiting = waiting;
  }

  /** What matches, is a log of its own, and is neither followed nor as it was when it made room. */
  async #freshFiles(): Promise<FoundFile[]> {
    const { config, meters } = this.#parts;
    const { paths, cut } = await matchingPaths(config.path, MAX_MATCHES);
    if (cut && !this.#cut) meters.fault(`${config.path} matches more than ${MAX_MATCHES} files`);
    this.#cut = cut;
    const present = new Set(paths);
    const isKnown = (path: string): boolean => present.has(path) || this.#known.has(path);
    const isOwn = (path: string): boolean =>
      !path.endsWith(".gz") && rotationBase(path, isKnown) === undefined;
    this.#own = new Set(paths.filter(isOwn));
    for (const path of this.#resting.keys()) if (!this.#own.has(path)) await this.#goneWhileResting(path);
    await this.#lookAgain();
    await this.#forgetGone();
    const fresh: FoundFile[] = [];
    for (const path of this.#own) {
      if (this.#followed.has(path)) continue;
      const found = await findFile(path).catch(() => undefined);
      if (found !== undefined && !this.#rests(found)) fresh.push(found);
    }
    return fresh;
  }

  /** All that could be seen of it was read: that it is gone is no loss. */
  async #goneWhileResting(path: string): Promise<void> {
    const { buffer } = this.#parts;
    this.#resting.delete(path);
    const source = this.#marks.nameOf(path);
    const place = await this.#marks.placeOf(path);
    if (place === undefined) return;
    await buffer.setMarks([
      ...this.#leaving(place),
      { source, value: encodePlace({ ...place, done: true }) },
    ]);
    await this.#lookForRest(path);
  }

  #rests({ path, id, size, modifiedNs }: FoundFile): boolean {
    const seen = this.#resting.get(path);
    return seen !== undefined && seen.id === id && seen.size === size && seen.modifiedNs === modifiedNs;
  }

  #isOpen(id: string): boolean {
    return [...this.#followed.values()].some(({ tail }) => tail.openId === id);
  }

  /**
   * Where a name is new its content may not be: then the place goes with it.
   * False while the file is still read by its former name.
   */
  async #adopted(found: FoundFile): Promise<boolean> {
    if (this.#isOpen(found.id)) return false;
    const { buffer } = this.#parts;
    const source = this.#marks.nameOf(found.path);
    if ((await this.#marks.placeOf(found.path)) !== undefined) return true;
    if (this.#strangers.get(found.path) === found.id) return true;
    for (const [name, place] of [...this.#left, ...(await this.#marks.places("at"))]) {
      if (place.offset === 0 || !mayBeRenamed(place, found) || !(await foundHoldsPlace(found, place)))
        continue;
      const {
        done: _,
        next: __,
        ...here
      } = { ...place, path: found.path, id: found.id, was: placeKey(place) };
      const marks: Mark[] = [{ source, value: encodePlace(here) }];
      if (this.#left.delete(name)) marks.push({ source: name, value: NONE });
      await buffer.setMarks(marks);
      this.#moved.add(here.was);
      return true;
    }
    this.#strangers.set(found.path, found.id);
    return true;
  }

  #makeRoom(wanted: number): void {
    const { config, clock } = this.#parts;
    const missing = this.#followed.size + wanted - config.maxFiles;
    if (missing <= 0) return;
    const { rotateWaitMs, multiline } = config;
    const quietMs = Math.max(MIN_QUIET_MS, rotateWaitMs, 2 * (multiline?.flushAfterMs ?? 0));
    const quietBeforeMs = clock.monotonicMs() - quietMs;
    const quiet = [...this.#followed].flatMap(([path, { tail }]) => {
      const { seen } = tail;
      return seen !== undefined && seen.quietSinceMs < quietBeforeMs ? [{ path, seen }] : [];
    });
    quiet.sort((a, b) => a.seen.quietSinceMs - b.seen.quietSinceMs);
    for (const { path, seen } of quiet.slice(0, missing)) {
      this.#resting.set(path, seen);
      this.#end(path);
    }
  }

  #follow(path: string, life: Life): void {
    const { config, clock, log, meters } = this.#parts;
    this.#known.add(path);
    this.#resting.delete(path);
    this.#strangers.delete(path);
    this.#absent.delete(path);
    this.#gone.delete(path);
    const tail = new TailedFile({
      ...this.#parts,
      path,
      sensor: `${config.name}/${relative(fixedFolder(config.path), path)}`,
      markName: this.#marks.nameOf(path),
      from: "start",
      company: {
        isOther: (other) => other !== path && this.#own.has(other),
        isElsewhere: (place) => this.#moved.has(placeKey(place)),
        leaving: (place) => this.#leaving(place),
      },
    });
    const supervisor = new Supervisor({
      name: config.name,
      type: "file",
      clock,
      log,
      meters,
      live: async (ofFile) => {
        await tail.live({ ...ofFile, fed: () => this.#fed(ofFile, life) });
        // Another may follow it by now.
        if (this.#followed.get(path)?.tail !== tail) return;
        this.#end(path);
        this.#gone.add(path);
      },
    });
    this.#followed.set(path, { tail, supervisor });
    void supervisor.start();
  }

  #fed(ofFile: Life, life: Life): void {
    ofFile.fed();
    life.fed();
  }

  /** Closed soon; what it is storing is stored, or will be read again. */
  #end(path: string): void {
    void this.#followed.get(path)?.supervisor.close();
    this.#followed.delete(path);
  }

  #leaving(place: FilePlace): Mark[] {
    if (place.offset === 0) return [];
    const name = this.#marks.nameOfLeft(place);
    this.#left.set(name, place);
    const marks: Mark[] = [{ source: name, value: encodePlace(place) }];
    for (const old of this.#left.keys()) {
      if (this.#left.size <= MAX_LEFT) break;
      this.#left.delete(old);
      marks.push({ source: old, value: NONE });
    }
    return marks;
  }

  /** @param report of the source as a whole */
  report(report: SourceReport): SourceReport {
    const files = [...this.#followed.values()].map(({ supervisor }) => supervisor.report());
    const retries = files.flatMap(({ retryInMs }) => (retryInMs === undefined ? [] : [retryInMs]));
    if (report.health !== "running" || retries.length === 0) return report;
    return { ...report, health: "backing-off", retryInMs: Math.min(...retries) };
  }

  async #closeAll(): Promise<void> {
    const all = [...this.#followed.values()];
    this.#followed.clear();
    await Promise.all(all.map(({ supervisor }) => supervisor.close()));
  }
}

function unlessMoved(error: unknown): undefined {
  if (!(error instanceof FileMoved)) throw error;
}

/** In doubt it is looked into. */
function ifMoved(error: unknown): boolean {
  if (!(error instanceof FileMoved)) throw error;
  return true;
}
