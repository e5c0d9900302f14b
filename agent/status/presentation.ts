/**
 * The status in words, once for the page and the terminal: sections of rows of cells. Neither of the
 * two knows what a source is.
 */
import type { BufferStatus } from "../../protocol/topics.ts";
import type { AgentStatus, ClockStatus, RecentError, UplinkStatus, WatchedSource } from "./agent-status.ts";
import { explained } from "./explained.ts";
import { ago, bytes, count, counted, duration, rate } from "./quantities.ts";

/** How a piece of text should strike the eye; the words say it too. */
export type Tone = "good" | "warn" | "bad" | "quiet";

export interface Cell {
  readonly text: string;
  readonly tone?: Tone;
}

export interface Column {
  readonly title: string;
  readonly numeric?: boolean;
  /** Sentences, which may take several lines. */
  readonly wide?: boolean;
}

export interface Section {
  readonly title: string;
  /** None for pairs of a name and what there is to say of it. */
  readonly columns?: readonly Column[];
  readonly rows: ReadonlyArray<readonly Cell[]>;
  /** Said when there are no rows. */
  readonly empty?: string;
}

export interface Presentation {
  readonly device: string;
  readonly version: string;
  readonly headline: Cell;
  readonly sections: readonly Section[];
}

export function present(status: AgentStatus): Presentation {
  const cameras = status.sources.filter(({ type }) => type === "camera");
  const others = status.sources.filter(({ type }) => type !== "camera");
  return {
    device: status.device,
    version: status.version,
    headline: headline(status),
    sections: [
      overview(status),
      sourceTable("Sources", "Records", others, "No sources are configured."),
      ...(cameras.length > 0 ? [sourceTable("Cameras", "Units", cameras, "")] : []),
      errorTable(status.errors),
    ],
  };
}

function headline({ health }: AgentStatus): Cell {
  if (health.state === "failing") return { text: health.reasons.join("; "), tone: "bad" };
  if (health.state === "warned") return { text: health.warnings.join("; "), tone: "warn" };
  return { text: "All is well", tone: "good" };
}

function overview(status: AgentStatus): Section {
  const { uplink, clock, footage } = status;
  const rows: Cell[][] = [
    [
      { text: "Gateway" },
      uplink.connected
        ? { text: `connected for ${duration(uplink.sinceMs)} to ${uplink.gateway}`, tone: "good" }
        : { text: `not reached for ${duration(uplink.sinceMs)}: ${uplink.gateway}`, tone: "warn" },
    ],
    ...linkRows(uplink),
    ...workRows(uplink),
    ...sentRows(uplink),
    [{ text: "Record buffer" }, bufferCell(status.buffer, "record")],
  ];
  if (footage !== undefined) rows.push([{ text: "Footage buffer" }, bufferCell(footage, "unit")]);
  rows.push(
    [{ text: "Clock" }, clockCell(clock)],
    [
      { text: "Program" },
      { text: `runs for ${duration(status.uptimeMs)}, ${bytes(status.residentBytes)} resident` },
    ],
  );
  return { title: "Overview", rows };
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"] as const;

/** Only where something is held back, or will be. */
function linkRows({ link }: UplinkStatus): Cell[][] {
  if (link === undefined) return [];
  const { mode, by, maxBytesPerSecond, until } = link;
  if (mode === "full" && maxBytesPerSecond === undefined && until === undefined) return [];
  const what = { full: "everything is sent", metered: "metered", paused: "paused" }[mode];
  const parts = [
    `${what}${by === "schedule" ? " by the schedule" : ""}`,
    ...(maxBytesPerSecond === undefined ? [] : [`at most ${bytes(maxBytesPerSecond)}/s`]),
  ];
  const end = until === undefined ? "" : ` until ${wallClock(new Date(until))}`;
  return [
    [{ text: "Link" }, { text: `${parts.join(", ")}${end}`, tone: mode === "full" ? "good" : "quiet" }],
  ];
}

/** Only while there is more to send than what is new. */
function workRows({ connected, live, backlog }: UplinkStatus): Cell[][] {
  if (!connected || backlog === undefined) return [];
  const { drainedInMs } = backlog;
  const drained = drainedInMs === undefined ? "does not shrink" : `drained in ${duration(drainedInMs)}`;
  const late = live?.latencyMs === undefined ? "" : `; live records are there in ${duration(live.latencyMs)}`;
  return [[{ text: "Backlog" }, { text: drained + late, tone: drainedInMs === undefined ? "warn" : "good" }]];
}

function sentRows({ sent }: UplinkStatus): Cell[][] {
  if (sent === undefined || sent.frameBytes === 0) return [];
  const { frameBytes, wireBytes } = sent;
  const how = wireBytes < frameBytes ? `, compressed to ${bytes(wireBytes)}` : "";
  return [[{ text: "Sent" }, { text: `${bytes(frameBytes)} of records${how}` }]];
}

/** As the schedule has it: the device's own time zone. */
function wallClock(date: Date): string {
  const two = (part: number): string => String(part).padStart(2, "0");
  return `${DAYS[date.getDay()]} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

const KNOWN_BY = {
  system: "the device's own clock, which nobody confirmed",
  ntp: "kept by NTP",
  gateway: "told by the gateway",
} as const;

function clockCell({ known, time, by, boundMs }: ClockStatus): Cell {
  if (!known) return { text: "not known yet: records wait for NTP or the gateway", tone: "warn" };
  const how = by === undefined ? "" : `, ${KNOWN_BY[by]}`;
  return { text: `${time}${how}${boundMs === undefined ? "" : `, ± ${duration(boundMs)}`}`, tone: "good" };
}

function bufferCell(buffer: BufferStatus, unit: string): Cell {
  const { waitingRecords, waitingBytes, maxBytes, oldestAgeMs, droppedRecords } = buffer;
  const full = Math.floor((waitingBytes / Math.max(1, maxBytes)) * 100);
  const parts = [
    waitingRecords === 0
      ? `empty, room for ${bytes(maxBytes)}`
      : `${counted(waitingRecords, unit)} wait, ${bytes(waitingBytes)} of ${bytes(maxBytes)} (${full} %), the oldest for ${duration(oldestAgeMs)}`,
    ...(droppedRecords > 0 ? [`${count(droppedRecords)} dropped`] : []),
  ];
  return { text: parts.join("; "), tone: droppedRecords > 0 || full >= 90 ? "warn" : "good" };
}

function sourceTable(title: string, what: string, sources: readonly WatchedSource[], empty: string): Section {
  return {
    title,
    empty,
    columns: [
      { title: "Name" },
      { title: "Type" },
      { title: "State" },
      { title: what, numeric: true },
      { title: "Rate", numeric: true },
      { title: "Last" },
      { title: "Rejected", numeric: true },
      { title: "Last error", wide: true },
    ],
    rows: sources.map((source) => [
      { text: source.name },
      { text: source.type, tone: "quiet" },
      stateCell(source),
      { text: count(source.records) },
      { text: rate(source.recordsPerSecond) },
      { text: source.lastRecordAgoMs === undefined ? "never" : ago(source.lastRecordAgoMs) },
      source.rejected > 0
        ? { text: count(source.rejected), tone: "warn" as const }
        : { text: "0", tone: "quiet" as const },
      // What to do about it stands among the last errors.
      { text: source.lastError === undefined ? "" : explained(source.lastError).message },
    ]),
  };
}

function stateCell({ type, state, health, retryInMs }: WatchedSource): Cell {
  if (state === "stalled" && type === "camera") return { text: "no pictures", tone: "warn" };
  if (state === "stalled") return { text: "held, buffer full", tone: "bad" };
  if (state === "stopped") return { text: "stopped", tone: "quiet" };
  if (state === "running") return { text: "running", tone: "good" };
  if (health === "idle") return { text: "nothing to read", tone: "quiet" };
  return {
    text: retryInMs === undefined ? "waiting" : `tries in ${duration(retryInMs)}`,
    tone: "warn",
  };
}

function errorTable(errors: readonly RecentError[]): Section {
  return {
    title: "Last errors",
    empty: "None since the agent started.",
    columns: [
      { title: "When" },
      { title: "Times", numeric: true },
      { title: "Part" },
      { title: "What", wide: true },
      { title: "What to do", wide: true },
    ],
    rows: errors.map(({ level, agoMs, times, part, code, message, hint }) => [
      { text: ago(agoMs) },
      { text: count(times) },
      { text: part ?? "agent" },
      {
        text: code === undefined ? message : `${code}: ${message}`,
        tone: level === "error" ? "bad" : "warn",
      },
      { text: hint ?? "" },
    ]),
  };
}
