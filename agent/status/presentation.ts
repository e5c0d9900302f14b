/**
 * The status in words, once for the page and the terminal: sections of rows of cells. Neither of the
 * two knows what a source is.
 */
import type { BufferStatus } from "../../protocol/topics.ts";
import type { AgentStatus, ClockStatus, RecentError, WatchedSource } from "./agent-status.ts";
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

function clockCell({ known, time, by, boundMs }: ClockStatus): Cell {
  if (!known) return { text: "not known yet: records wait for NTP or the gateway", tone: "warn" };
  const how = by === undefined ? "" : `, known by ${by}`;
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

function stateCell({ state, health, retryInMs }: WatchedSource): Cell {
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
