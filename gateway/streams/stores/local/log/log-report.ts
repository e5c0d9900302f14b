/** What the operator hears of a stream's log where nobody waits for an answer: each thing logged, and counted where it can be. */
import { describeError, type HeadwaterError } from "../../../../../runtime/errors.ts";
import type { Extent } from "../segments/segment-index.ts";
import type { LogMeters } from "./log-meters.ts";
import type { Finding } from "./log-recovery.ts";

export interface LogReportOptions {
  /** The stream's. */
  readonly name: string;
  readonly meters: LogMeters;
  readonly report: (level: "warn" | "error", fields: Record<string, unknown>, message: string) => void;
}

export class LogReport {
  readonly #options: LogReportOptions;
  #damagedBytes = 0;

  constructor(options: LogReportOptions) {
    this.#options = options;
  }

  /** So far. */
  get damagedBytes(): number {
    return this.#damagedBytes;
  }

  /** Of the opening. */
  finding({ what, file, extent }: Finding): void {
    if (what === "damage") {
      this.damage(file, extent);
      return;
    }
    const { name, meters, report } = this.#options;
    if (what === "missing") {
      report("error", { stream: name, file }, "entries behind this file are missing from the log");
      return;
    }
    const bytes = extent.to - extent.from;
    meters.tornBytes.inc({ stream: name }, bytes);
    const fields = { stream: name, file, position: extent.from, bytes };
    report("warn", fields, "cut the rest of a write that never ended");
  }

  /** Once for each extent. */
  damage(file: string, extent: Extent): void {
    const { name, meters, report } = this.#options;
    const bytes = extent.to - extent.from;
    this.#damagedBytes += bytes;
    meters.damagedBytes.inc({ stream: name }, bytes);
    const fields = { stream: name, file, position: extent.from, bytes };
    report("error", fields, "the log is damaged; what can be read is kept");
  }

  writeFailed(failure: HeadwaterError): void {
    this.#options.meters.writeFailures.inc({ stream: this.#options.name });
    this.#failed("error", failure, "the log cannot be written");
  }

  repairFailed(error: unknown): void {
    this.#failed("error", error, "the log cannot be repaired yet");
  }

  repaired(): void {
    const { name, report } = this.#options;
    report("warn", { stream: name }, "the log is repaired and accepts again");
  }

  diskSilent(silentMs: number): void {
    const { name, report } = this.#options;
    const fields = { stream: name, silentMs: Math.round(silentMs) };
    report("error", fields, "the disk does not answer; nothing is stored meanwhile");
  }

  diskAnswers(silentMs: number): void {
    const { name, report } = this.#options;
    report("warn", { stream: name, silentMs: Math.round(silentMs) }, "the disk answers again");
  }

  housekeepingFailed(error: unknown): void {
    this.#failed("warn", error, "housekeeping failed");
  }

  #failed(level: "warn" | "error", error: unknown, message: string): void {
    const { name, report } = this.#options;
    report(level, { stream: name, error: describeError(error) }, message);
  }
}
