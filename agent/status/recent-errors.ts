/**
 * The last errors that the agent met, for its status: bounded, each with its code, its hint, when and
 * how often. Fed by the log: what is worth a warning there is worth a look here.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Log, LogFields } from "../../runtime/log.ts";
import type { RecentError } from "./agent-status.ts";
import { explained, shown } from "./explained.ts";

/** Kinds of error, not occurrences: one that comes again counts up. */
const MAX_KINDS = 20;

interface Kept extends Omit<RecentError, "agoMs" | "firstAgoMs" | "times"> {
  readonly firstMs: number;
  lastMs: number;
  times: number;
}

export class RecentErrors {
  readonly #clock: Clock;
  /** In the order of their last occurrence, oldest first. */
  readonly #kept = new Map<string, Kept>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A log that writes to `log` and is watched. */
  watch(log: Log, inherited: LogFields = {}): Log {
    return {
      debug: (fields, message) => log.debug(fields, message),
      info: (fields, message) => log.info(fields, message),
      warn: (fields, message) => {
        this.#note("warn", { ...inherited, ...fields }, message);
        log.warn(fields, message);
      },
      error: (fields, message) => {
        this.#note("error", { ...inherited, ...fields }, message);
        log.error(fields, message);
      },
      child: (fields) => this.watch(log.child(fields), { ...inherited, ...fields }),
    };
  }

  #note(level: "warn" | "error", fields: LogFields, message: string): void {
    const part = textOf(fields.source) ?? textOf(fields.camera) ?? textOf(fields.part);
    const error = textOf(fields.error) ?? textOf(fields.reason);
    const said = error === undefined ? { message: shown(message) } : explained(error, message);
    // The same error with other figures in it, such as a number of bytes, is the same error.
    const key = `${part} ${said.code ?? ""} ${said.message.replace(/\d+/g, "#")}`;
    const nowMs = this.#clock.monotonicMs();
    const known = this.#kept.get(key);
    this.#kept.delete(key);
    this.#kept.set(key, {
      level,
      ...(part !== undefined && { part }),
      ...said,
      firstMs: known?.firstMs ?? nowMs,
      lastMs: nowMs,
      times: (known?.times ?? 0) + 1,
    });
    if (this.#kept.size > MAX_KINDS) this.#kept.delete(this.#kept.keys().next().value!);
  }

  /** The newest first. */
  list(): RecentError[] {
    const nowMs = this.#clock.monotonicMs();
    return [...this.#kept.values()].reverse().map(({ firstMs, lastMs, ...error }) => ({
      ...error,
      agoMs: Math.round(nowMs - lastMs),
      firstAgoMs: Math.round(nowMs - firstMs),
    }));
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
