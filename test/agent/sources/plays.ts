/**
 * A source that reads a log while things are done to it, each after so many looks of the source, and what
 * must come of it: each line stored once, in order, and nothing told as lost that is not.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import { openBuffer, readAll, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { Watch } from "./looks.ts";
import { RotatedLog } from "./rotated-log.ts";
import { sourceParts, tailConfig, until } from "./source-parts.ts";

/** A source that has stored all stores no more, once it looked so often without storing anything. */
const SETTLED_LOOKS = 120;
/** What it has not stored by then is lost. It looks on while the disk lets it wait, for seconds on a busy machine. */
const PATIENT_LOOKS = 6_000;
const AT_ONCE = 8;

export type Act = (log: RotatedLog) => void;

export interface Play {
  /** Before the source looks at all. */
  readonly first: Act;
  /** Once it has stored what was there, one after another. */
  readonly acts: readonly Act[];
  /** Before each of them. */
  readonly looks: readonly number[];
  /** How many are told. */
  readonly gaps?: number;
  readonly says?: string;
}

interface Stage {
  readonly t: TestContext;
  readonly root: string;
  readonly buffer: RecordBuffer;
  readonly watch: Watch;
  readonly pattern: string;
}

/** @param pattern of the log's files, or its name */
export async function playAll(t: TestContext, pattern: string, plays: readonly Play[]): Promise<void> {
  const root = await temporaryFolder(t);
  const buffer = await openBuffer(join(root, "buffer"));
  t.after(() => buffer.close());
  const stage: Stage = { t, root, buffer, watch: new Watch(t), pattern };
  const written: number[] = [];
  const waiting = [...plays.entries()];
  const some = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
      written[next[0]] = await played(stage, nameOf(next[0]), next[1]);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, some));
  const stored = texts(await readAll(buffer)).map((text) => JSON.parse(text) as Record<string, unknown>);
  const wrong = plays.flatMap((play, i) => {
    const own = stored.filter(({ sensor }) => String(sensor).split("/")[0] === nameOf(i));
    return judged(play, own, written[i]!);
  });
  assert.deepEqual(wrong, []);
}

function nameOf(index: number): string {
  return `play-${index}`;
}

function judged(play: Play, own: readonly Record<string, unknown>[], written: number): string[] {
  const { looks, says = "", gaps = 0 } = play;
  const has = own.flatMap(({ line }) => (line === undefined ? [] : [String(line).split(" ")[0]]));
  const told = own.length - has.length;
  const all = Array.from({ length: written }, (_, i) => String(i));
  if (has.join() === all.join() && told === gaps) return [];
  return [`${says} after ${looks.join(", ")} looks: ${has.join(" ")} of ${written}, ${told} gaps`];
}

/** How many lines were written. */
async function played(stage: Stage, name: string, { first, acts, looks, gaps = 0 }: Play): Promise<number> {
  const { t, root, buffer, watch, pattern } = stage;
  const folder = join(root, name);
  mkdirSync(folder);
  const taken = watch.at(folder);
  const log = new RotatedLog(folder, join(root, `${name}-clock`));
  first(log);
  // With nothing to wait for, a file that is followed alone is looked at in one order only.
  const config = tailConfig(join(folder, pattern), { name, pollMs: 1, rotateWaitMs: 0 });
  const source = new FileTail({ ...sourceParts(buffer), config });
  t.after(() => source.close());
  await source.start();
  // What is rotated before it is seen for the first time is nobody's.
  await until(async () => (await buffer.marks(`file/${name}`)).length > 0);
  await until(() => source.status().records >= log.lines);
  let left = acts.length;
  let due = 0;
  for (const [i, act] of acts.entries()) {
    due += looks[i] ?? 0;
    taken.after(due, () => {
      act(log);
      left--;
    });
  }
  let stored = source.status().records;
  let since = taken.count;
  await until(() => {
    const now = source.status().records;
    if (now !== stored || left > 0) since = taken.count;
    stored = now;
    return taken.count - since >= (stored < log.lines + gaps ? PATIENT_LOOKS : SETTLED_LOOKS);
  });
  await source.close();
  return log.lines;
}
