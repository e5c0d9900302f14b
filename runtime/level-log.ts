/**
 * Finds damage in the logs of a LevelDB before it is opened. LevelDB drops what it cannot read of a log, and opens
 * without a word: one flipped byte costs a batch that was synced, or all that stand behind it in their block.
 *
 *   blocks of 32 KiB:  [u32 masked crc32c | u16 bytes | u8 type | data] [record] … zeros, where less than a head has room
 *   type: 1 a whole batch | 2 the first piece of one | 3 a middle one | 4 the last one
 *
 * A crash leaves at most one batch that is not whole, the last, if each was synced before the next was written. So what
 * cannot be read is damage where another batch begins behind it. Of the last one only a note of the last close in peace
 * tells, `closed.json`: LevelDB makes a new CURRENT at each opening, so the note speaks of the logs as long as that is the same.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { checkedLine } from "./checked-line.ts";
import { crc32c } from "./crc32c.ts";
import { writeDurably } from "./durable.ts";

const BLOCK_BYTES = 32_768;
const HEAD_BYTES = 7;
const WHOLE = 1;
const FIRST = 2;
const LAST = 4;
const LOG_NAME = /^\d+\.log$/;
const NOTE = "closed.json";

export interface LevelLogDamage {
  /** Its name in the folder. */
  readonly file: string;
  /** In bytes. */
  readonly from: number;
}

interface ClosedNote {
  /** What CURRENT held. */
  readonly current: string;
  /** How long each log was, by its name. */
  readonly logs: Readonly<Record<string, number>>;
}

/** The first damage found; undefined where there is none, and where there is no database. Nobody may have it open. */
export async function levelLogDamage(folder: string): Promise<LevelLogDamage | undefined> {
  // The note last: whoever has the database open meanwhile, as two gateways of one folder, has made it one of the past.
  const logs = await logsOf(folder);
  const note = await readNote(folder);
  for (const [file, bytes] of logs) {
    const from = damageIn(bytes, note?.logs[file] !== undefined);
    if (from !== undefined) return { file, from };
  }
  for (const [file, bytes] of Object.entries(note?.logs ?? {})) {
    const have = logs.get(file)?.length ?? 0;
    if (have !== bytes) return { file, from: Math.min(have, bytes) };
  }
  return undefined;
}

/** Tells one opening of a database from all others. */
export function openingOf(folder: string): Promise<string> {
  return readFile(join(folder, "CURRENT"), "utf8");
}

/**
 * Notes that all that its logs hold is whole. Once the database is closed, and only if its last write succeeded.
 * @param current its `openingOf`, from before it was closed: from then on another process may have it open
 */
export async function noteLevelClosed(folder: string, current: string): Promise<void> {
  const logs = Object.fromEntries(Array.from(await logsOf(folder), ([file, { length }]) => [file, length]));
  const note: ClosedNote = { current, logs };
  await writeDurably(join(folder, NOTE), checkedLine(JSON.stringify(note)));
}

/** undefined where there is none that is sound, or where the database was opened since. */
async function readNote(folder: string): Promise<ClosedNote | undefined> {
  const text = await readFile(join(folder, NOTE), "utf8").catch(() => "");
  const [line = ""] = text.split("\n", 1);
  if (line === "" || text !== checkedLine(line)) return undefined;
  const note = JSON.parse(line) as ClosedNote;
  const current = await openingOf(folder).catch(() => undefined);
  return note.current === current ? note : undefined;
}

async function logsOf(folder: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(folder).catch(noneWhenGone)) ?? [];
  const logs = new Map<string, Buffer>();
  for (const name of names.filter((one) => LOG_NAME.test(one)).sort()) {
    const log = await readFile(join(folder, name)).catch(noneWhenGone);
    if (log !== undefined) logs.set(name, log);
  }
  return logs;
}

function noneWhenGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

/** @param isWhole also the last batch is */
function damageIn(log: Buffer, isWhole: boolean): number | undefined {
  let bad: number | undefined;
  for (let at = 0; at + HEAD_BYTES <= log.length; ) {
    const blockEnd = at - (at % BLOCK_BYTES) + BLOCK_BYTES;
    if (blockEnd - at < HEAD_BYTES) {
      at = blockEnd;
      continue;
    }
    const end = soundEnd(log, at, blockEnd);
    if (end === undefined) {
      // It may be its length that is wrong: any place may be the next one's.
      bad ??= at;
      at++;
      continue;
    }
    const type = log[at + 6]!;
    // Later pieces of the batch that is not whole tell nothing.
    if (bad !== undefined && (type === WHOLE || type === FIRST)) return bad;
    at = end;
  }
  return isWhole ? bad : undefined;
}

/** Where the record at `at` ends; undefined where none that is sound stands there. */
function soundEnd(log: Buffer, at: number, blockEnd: number): number | undefined {
  const end = at + HEAD_BYTES + log.readUInt16LE(at + 4);
  const type = log[at + 6]!;
  if (type < WHOLE || type > LAST || end > blockEnd || end > log.length) return undefined;
  const crc = crc32c(log, at + 6, end);
  const masked = (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
  return masked === log.readUInt32LE(at) ? end : undefined;
}
