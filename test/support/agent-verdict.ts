/**
 * Compares what an agent's sources know that they sent with what the gateway holds: counts what is lost,
 * doubled, out of order or changed, and says which.
 */
import type { GapRecord } from "../../protocol/topics.ts";
import { type Moments, type NumberedSource, numbered } from "./numbered-sources.ts";
import { pictureDigests } from "./picture-digests.ts";

export class AgentVerdict {
  lost = 0;
  doubled = 0;
  corrupted = 0;
  /** What was found, in words, beginning with these; also what none of the three counts is for. */
  readonly findings: string[] = [];
  /** How much was compared and harmed, so that an empty run cannot pass for a good one. */
  readonly compared: Record<string, number> = {};

  find(kind: "lost" | "doubled" | "corrupted" | "wrong", what: string): void {
    if (kind !== "wrong") this[kind]++;
    if (this.findings.length < MAX_FINDINGS) this.findings.push(`${kind}: ${what}`);
  }

  /** Findings of one kind about many numbers, told as runs of them. */
  findAll(kind: "lost" | "doubled" | "corrupted", what: string, numbers: readonly number[]): void {
    if (numbers.length === 0) return;
    this[kind] += numbers.length - 1;
    const runs: string[] = [];
    for (let i = 0, from = 0; i < numbers.length; i++) {
      if (numbers[i + 1] === numbers[i]! + 1) continue;
      runs.push(from === i ? `${numbers[i]}` : `${numbers[from]} to ${numbers[i]}`);
      from = i + 1;
    }
    this.find(kind, `${what} ${runs.slice(0, MAX_RUNS).join(", ")}${runs.length > MAX_RUNS ? ", …" : ""}`);
  }

  /** The largest of what is counted. */
  most(what: string, figure: number): void {
    this.compared[what] = Math.max(this.compared[what] ?? 0, figure);
  }

  count(what: string, times = 1): void {
    this.compared[what] = (this.compared[what] ?? 0) + times;
  }
}

const MAX_FINDINGS = 40;
const MAX_RUNS = 10;
/** A device's time is right to a second, however its clock jumps. */
const TIME_OFF_MS = 1_000;
/** A record's time may have been made surer since its gap was told. */
const GAP_SLACK_US = 250_000;

type Reading = Readonly<Record<string, unknown>>;

/** Records by sensor, in the order of the stream. */
export function bySensor(texts: readonly string[], verdict: AgentVerdict): Map<string, Reading[]> {
  const sensors = new Map<string, Reading[]>();
  for (const text of texts) {
    try {
      const reading = JSON.parse(text) as Reading;
      const sensor = String(reading.sensor);
      const before = sensors.get(sensor);
      if (before === undefined) sensors.set(sensor, [reading]);
      else before.push(reading);
    } catch {
      verdict.find("corrupted", `a record is no JSON: ${text.slice(0, 80)}`);
    }
  }
  return sensors;
}

/**
 * All that was acknowledged came once, as it was, where that is promised in its order, with the time at which it was made; nothing
 * came that was not sent.
 */
export function judgeNumbered(
  sources: readonly NumberedSource[],
  came: ReadonlyMap<string, readonly Reading[]>,
  ordered: boolean,
  verdict: AgentVerdict,
): void {
  for (const { sensor, sent, acknowledged, moments } of sources) {
    verdict.count("acknowledged", acknowledged);
    const seen = new Set<number>();
    const wrong = {
      changed: [] as number[],
      doubled: [] as number[],
      late: [] as number[],
      lost: [] as number[],
    };
    let before = 0;
    let timeOffMs = 0;
    for (const { seq, proof, time } of came.get(sensor) ?? []) {
      const n = Number(seq);
      if (!(n >= 1 && n <= sent) || proof !== numbered(sensor, n).proof) wrong.changed.push(n);
      else if (seen.has(n)) wrong.doubled.push(n);
      else if (n < before) wrong.late.push(n);
      seen.add(n);
      before = Math.max(before, n);
      timeOffMs = Math.max(timeOffMs, offMs(Date.parse(String(time)), moments.get(n)));
    }
    for (let n = 1; n <= sent; n++) if (!seen.has(n)) wrong.lost.push(n);
    verdict.count("arrived", seen.size);
    verdict.most("timeOffMs", Math.round(timeOffMs));
    verdict.findAll("corrupted", `${sensor}: not what was sent`, wrong.changed);
    verdict.findAll("doubled", sensor, wrong.doubled);
    verdict.count("overtaken", wrong.late.length);
    if (ordered) verdict.findAll("corrupted", `${sensor}: behind later ones`, wrong.late);
    verdict.findAll("lost", sensor, wrong.lost);
    if (!(timeOffMs <= TIME_OFF_MS)) verdict.find("corrupted", `${sensor}: a time is ${timeOffMs} ms off`);
  }
}

/** How far a time lies outside the moments between which the record was made; NaN where it is no time. */
function offMs(timeMs: number, moments: Moments | undefined): number {
  if (moments === undefined) return 0;
  return Math.max(0, moments.sentMs - timeMs, timeMs - moments.acknowledgedMs);
}

/** A line as the board's truth has it. */
export interface BoardLine {
  readonly counter: number;
  readonly temperature: number | null;
}

/**
 * A board cannot be asked again: nothing is doubled or changed, and where lines are missing a gap was reported
 * between the record before and the one behind. Both were given their times as they were read: how long a line
 * takes through the PTY does not matter.
 */
export function judgeBoard(
  lines: readonly BoardLine[],
  came: readonly Reading[],
  gaps: readonly GapRecord[],
  ordered: boolean,
  verdict: AgentVerdict,
): void {
  const truth = new Map(lines.map((line) => [line.counter, line]));
  const readUs = new Map<number, number>();
  let before = -1;
  for (const reading of came) {
    // The rest of a line whose beginning went with the process that read it; told with its reason.
    if (reading.counter === undefined && "raw" in reading) {
      verdict.count("boardPieces");
      continue;
    }
    const counter = Number(reading.counter);
    const line = truth.get(counter);
    if (line === undefined || (line.temperature ?? undefined) !== (reading.temperature ?? undefined))
      verdict.find("corrupted", `board counter ${reading.counter} is not what was written`);
    else if (readUs.has(counter)) verdict.find("doubled", `board counter ${counter}`);
    else if (ordered && counter < before)
      verdict.find("corrupted", `board counter ${counter} came after ${before}`);
    readUs.set(counter, Date.parse(String(reading.time)) * 1_000);
    before = Math.max(before, counter);
  }
  verdict.count("boardLines", readUs.size);
  // Before the first record the agent knows of no board that it could miss.
  const [first = 0] = [...readUs.keys()].sort((a, b) => a - b);
  let lastUs = 0;
  let missing: number[] = [];
  for (const { counter } of [...lines, { counter: Number.POSITIVE_INFINITY }]) {
    const nextUs = counter === Number.POSITIVE_INFINITY ? counter : readUs.get(counter);
    if (nextUs === undefined) {
      if (counter > first) missing.push(counter);
      continue;
    }
    const told = gaps.some(
      ({ fromUs, toUs }) => fromUs >= lastUs - GAP_SLACK_US && toUs <= nextUs + GAP_SLACK_US,
    );
    if (told) verdict.count("boardLinesInGaps", missing.length);
    else verdict.findAll("lost", "no gap is reported for board counter", missing);
    missing = [];
    lastUs = nextUs;
  }
}

/** Of the archive. */
export interface JudgedUnit {
  /** epoch/sequence */
  readonly name: string;
  readonly state: string;
  /** Undefined where it is not whole. */
  readonly file: Buffer | undefined;
}

/**
 * Every unit that the agent stored is in the archive, once and whole, with the camera's own pictures in their
 * order. Where the camera or the way to it broke off within a picture, a piece of that one may end the last
 * unit before the break; it is counted.
 * @param units in the order of their times
 * @param pictures digests of what the camera sent, in order
 */
export function judgeUnits(
  units: readonly JudgedUnit[],
  stored: ReadonlySet<string>,
  pictures: readonly string[],
  verdict: AgentVerdict,
): void {
  const places = new Map(pictures.map((digest, i) => [digest, i]));
  if (places.size < pictures.length) verdict.find("wrong", "the camera sent pictures that are alike");
  const archived = new Set<string>();
  let cutAfter: number | undefined;
  for (const { name, state, file } of units) {
    if (archived.has(name)) verdict.find("doubled", `unit ${name}`);
    archived.add(name);
    if (file === undefined) {
      // Without its end it was never whole at the agent either, unless the agent says so.
      if (stored.has(name)) verdict.find("lost", `unit ${name} is ${state}`);
      continue;
    }
    const found = pictureDigests(file).map(({ vclSha256 }) => places.get(vclSha256));
    verdict.count("pictures", found.length);
    const [first] = found;
    // Footage that goes on right behind a piece was not broken off there: the piece is a damaged picture.
    if (cutAfter !== undefined && first === cutAfter + 2)
      verdict.find("corrupted", `unit ${name} goes on behind a picture that the camera did not send`);
    cutAfter = undefined;
    if (found.length > 0 && found.at(-1) === undefined) {
      verdict.count("pieces");
      found.pop();
      cutAfter = found.at(-1);
    }
    if (found.some((place, i) => place === undefined || place !== first! + i))
      verdict.find(
        "corrupted",
        `unit ${name} has other pictures than the camera sent: numbers ${found.join()}`,
      );
  }
  verdict.count("units", archived.size);
  verdict.count("storedUnits", stored.size);
  for (const name of stored) if (!archived.has(name)) verdict.find("lost", `unit ${name}`);
}
