/**
 * All that a statement needs to go on after a crash, in one piece that is replaced as a whole (checkpoint-place.ts):
 * where it stands in its input, its open windows, event time, and the result frames that may or may
 * not have reached the output stream.
 *
 *   headwater-analytics 3 <crc32c of what follows, 8 hex digits>
 *   {"planHash": …}        where it stands
 *   [[key, …], …]          some of the open windows; as many lines as there are
 *   "…"                    a result frame in base64; likewise
 *
 * Each line is JSON of its own, so that both ways of a state of 100,000 windows can be gone in turns.
 * Version 2 had no arrivals, version 1 was one line with all of it; they are read, too.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { z } from "zod";
import { crcOf, inHex } from "../../runtime/checked-line.ts";
import { crc32c } from "../../runtime/crc32c.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import type { Offset, ShardId, UnreadShards } from "../streams/streams.ts";
import type { Group, Measure } from "./panes.ts";

const MAGIC = "headwater-analytics";
/** To be raised with each new key: a program takes one that it does not know for damage. */
const VERSION = 3;
const VERSIONS: readonly string[] = ["1", "2", String(VERSION)];
/** There may be 100,000 of them, and the event loop is everybody's. */
const GROUPS_A_TURN = 1_000;

export interface Totals {
  records: number;
  late: number;
  rejected: number;
  results: number;
  trimmed: number;
  skipped: number;
}

export interface Checkpoint {
  /** Which statement made it: a hash of its plan. */
  readonly planHash: string;
  readonly streamId: string;
  readonly positions: ReadonlyMap<ShardId, Offset>;
  readonly watermarkMs: number | undefined;
  readonly maxTimes: ReadonlyMap<ShardId, number>;
  /** As `Watermark.arrivals`. Empty in one of an earlier version. */
  readonly arrivals: ReadonlyMap<ShardId, number>;
  readonly groups: readonly Group[];
  readonly totals: Totals;
  /** The sink's epoch and the sequence of the next frame behind `pending`. */
  readonly epoch: bigint;
  readonly nextSequence: bigint;
  /** Result frames, whole, to be appended (again) before anything else. */
  readonly pending: readonly Buffer[];
  /** What stood unread when the statement last failed (`lookForUnread`); none while it works. */
  readonly unread?: UnreadShards | undefined;
}

/** The statement stops: its windows cannot be known without its checkpoint. */
export class AnalyticsStateError extends HeadwaterError {
  constructor(statement: string, problem: string, cause?: unknown, hint?: string) {
    super("ANALYTICS_STATE_LOST", {
      message: `statement ${statement}: ${problem}`,
      hint: hint ?? "restore its checkpoint from a backup, or give the statement a new name to start afresh",
      cause,
    });
  }
}

const count = z.number().int().min(0);
const digits = z.string().regex(/^\d{1,20}$/);
/** JSON has no Infinity, which a sum of doubles may reach. */
const double = z.union([z.number(), z.enum(["Infinity", "-Infinity", "NaN"])]);
const keyValue = z.union([z.string(), z.number(), z.boolean(), z.null()]);
/** count, sum (`123n` where it is an exact integer), lost, min, max */
const measure = z.tuple([count, z.union([double, z.string().regex(/^-?\d+n$/)]), double, double, double]);

const group = z.tuple([z.array(keyValue), z.number().int(), count, z.array(measure)]);

const version2Schema = z.strictObject({
  planHash: z.string(),
  streamId: z.string(),
  positions: z.record(z.string(), count),
  watermarkMs: z.number().int().nullable(),
  maxTimes: z.record(z.string(), z.number().int()),
  totals: z.strictObject({
    records: count,
    late: count,
    rejected: count,
    results: count,
    trimmed: count,
    skipped: count.default(0),
  }),
  epoch: digits,
  nextSequence: digits,
  unread: z
    .strictObject({
      streamId: z.string(),
      shards: z.record(z.string(), z.tuple([count, count, count.optional()])),
    })
    .optional(),
});
const schema = version2Schema.extend({ arrivals: z.record(z.string(), z.number()) });
type Stored = z.infer<typeof version2Schema> & Partial<z.infer<typeof schema>>;
const lineSchema = z.union([z.array(group), z.string()]);
const version1Schema = version2Schema.extend({ groups: z.array(group), pending: z.array(z.string()) });

/**
 * @param checkpoint is read in turns; nothing of it may change before this resolved
 * @returns pieces, to be stored one behind the other
 */
export async function encodeCheckpoint(checkpoint: Checkpoint): Promise<Buffer[]> {
  const { groups, pending } = checkpoint;
  const lines: Buffer[] = [];
  let checksum = 0;
  const add = (json: string): void => {
    const line = Buffer.from(`${json}\n`);
    checksum = crc32c(line, 0, line.length, checksum);
    lines.push(line);
  };
  add(JSON.stringify(encode(checkpoint)));
  for (let from = 0; from < groups.length; from += GROUPS_A_TURN) {
    if (from > 0) await nextTurn();
    add(JSON.stringify(groups.slice(from, from + GROUPS_A_TURN).map(encodeGroup)));
  }
  for (const frame of pending) {
    await nextTurn();
    add(`"${frame.toString("base64")}"`);
  }
  const head = `${MAGIC} ${VERSION} ${inHex(checksum)}\n`;
  return [Buffer.from(head), ...lines];
}

function encode(checkpoint: Checkpoint): z.input<typeof schema> {
  return {
    planHash: checkpoint.planHash,
    streamId: checkpoint.streamId,
    positions: Object.fromEntries(checkpoint.positions),
    watermarkMs: checkpoint.watermarkMs ?? null,
    maxTimes: Object.fromEntries(checkpoint.maxTimes),
    arrivals: Object.fromEntries(checkpoint.arrivals),
    totals: checkpoint.totals,
    epoch: checkpoint.epoch.toString(),
    nextSequence: checkpoint.nextSequence.toString(),
    unread: checkpoint.unread,
  };
}

function encodeGroup({ key, paneMs, rows, measures }: Group): z.infer<typeof group> {
  return [[...key], paneMs, rows, measures.map(encodeMeasure)];
}

/** @param where it was kept, for messages @throws AnalyticsStateError when it is damaged or of another version */
export async function decodeCheckpoint(bytes: Buffer, where: string, statement: string): Promise<Checkpoint> {
  const headEnd = bytes.indexOf("\n");
  const [magic, version, crc] = bytes.toString("latin1", 0, Math.max(0, headEnd)).split(" ");
  if (magic !== MAGIC) throw new AnalyticsStateError(statement, `${where} is no checkpoint`);
  if (version === undefined || !VERSIONS.includes(version)) {
    throw new AnalyticsStateError(
      statement,
      `${where} has format version ${version}, this program reads up to ${VERSION}`,
      undefined,
      "start the version of Headwater that wrote it; the checkpoint was not touched",
    );
  }
  const body = bytes.subarray(headEnd + 1);
  if (crcOf(body) !== crc) {
    throw new AnalyticsStateError(statement, `the checksum of ${where} does not match`);
  }
  try {
    if (version === "1") return decodeVersion1(body);
    return await decodeLines(body, version === "2" ? version2Schema : schema);
  } catch (error) {
    throw new AnalyticsStateError(statement, `${where} cannot be read`, error);
  }
}

async function decodeLines(
  body: Buffer,
  firstLine: typeof schema | typeof version2Schema,
): Promise<Checkpoint> {
  const groups: Group[] = [];
  const pending: Buffer[] = [];
  let first: Stored | undefined;
  for (let from = 0; from < body.length; ) {
    const end = body.indexOf("\n", from);
    if (end < 0) throw new Error("its last line has no end");
    const line: unknown = JSON.parse(body.toString("utf8", from, end));
    from = end + 1;
    if (first === undefined) first = firstLine.parse(line);
    else {
      await nextTurn();
      const more = lineSchema.parse(line);
      if (typeof more === "string") pending.push(Buffer.from(more, "base64"));
      else for (const one of more) groups.push(decodeGroup(one));
    }
  }
  return decode(firstLine.parse(first), groups, pending);
}

function decodeVersion1(body: Buffer): Checkpoint {
  const { groups, pending, ...first } = version1Schema.parse(JSON.parse(body.toString("utf8")));
  const frames = pending.map((frame) => Buffer.from(frame, "base64"));
  return decode(first, groups.map(decodeGroup), frames);
}

function decode(stored: Stored, groups: Group[], pending: Buffer[]): Checkpoint {
  return {
    planHash: stored.planHash,
    streamId: stored.streamId,
    positions: new Map(Object.entries(stored.positions)),
    watermarkMs: stored.watermarkMs ?? undefined,
    maxTimes: new Map(Object.entries(stored.maxTimes)),
    arrivals: new Map(Object.entries(stored.arrivals ?? {})),
    groups,
    totals: stored.totals,
    epoch: BigInt(stored.epoch),
    nextSequence: BigInt(stored.nextSequence),
    pending,
    ...(stored.unread !== undefined && { unread: stored.unread }),
  };
}

function decodeGroup([key, paneMs, rows, measures]: z.infer<typeof group>): Group {
  return { key, paneMs, rows, measures: measures.map(decodeMeasure) };
}

function encodeMeasure(from: Measure): z.infer<typeof measure> {
  const sum = typeof from.sum === "bigint" ? `${from.sum}n` : encodeDouble(from.sum);
  return [from.count, sum, encodeDouble(from.lost), encodeDouble(from.min), encodeDouble(from.max)];
}

function decodeMeasure([rows, sum, lost, min, max]: z.infer<typeof measure>): Measure {
  const exact = typeof sum === "string" && sum.endsWith("n");
  return {
    count: rows,
    sum: exact ? BigInt(sum.slice(0, -1)) : Number(sum),
    lost: Number(lost),
    min: Number(min),
    max: Number(max),
  };
}

function encodeDouble(value: number): z.infer<typeof double> {
  return Number.isFinite(value) ? value : (String(value) as "Infinity" | "-Infinity" | "NaN");
}
