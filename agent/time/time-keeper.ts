/**
 * Finds out what time it is, once for each boot, and brings what was written before to UTC.
 *
 *   a clock that runs on while the device is off  → system
 *   the kernel says that NTP keeps its clock      → ntp
 *   a gateway was asked                           → gateway
 *
 * Earlier boots that ended before any of these are estimated, between what is known before and after.
 * docs/design/0022-time.md says why.
 */
import { pause } from "../../runtime/backoff.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import { gapRecord } from "../sources/reading-record.ts";
import type { AgentClock, BootMoment, TimeKnownBy } from "./agent-clock.ts";
import { type BootEntry, BootTable, type KnownMoment } from "./boot-table.ts";
import type { DeviceTime } from "./device-time.ts";
import { CLOCK_SET_US, takenApart } from "./provisional-time.ts";

export interface TimeKeeperOptions {
  readonly device: string;
  readonly time: DeviceTime;
  readonly clock: AgentClock;
  readonly buffer: RecordBuffer;
  readonly log: Log;
  /** For how long the gateway has been reached; undefined while it is not. */
  readonly linkUpMs: () => number | undefined;
  /** How often the kernel is asked; 10 s unless given. */
  readonly askEveryMs?: number;
}

/** What the gateway said. */
export interface GatewayTime {
  readonly utcUs: number;
  /** When that was, by the agent's monotonic clock. */
  readonly atMs: number;
  readonly boundUs: number;
}

/** A gateway that has not said what time it is by then never will: it is of an older version. */
const ANSWER_WITHIN_MS = 10_000;
/** How far off a clock is that NTP keeps, or nobody does. */
const NTP_BOUND_US = 500_000;
const SYSTEM_BOUND_US = 60_000_000;
const AGREES_WITHIN_US = 100_000;
const KEEP_LAST_KNOWN_MS = 600_000;

export class TimeKeeper {
  readonly #options: TimeKeeperOptions;
  readonly #table: BootTable;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<() => void>();
  #current: BootEntry | undefined;
  #loop: Promise<void> | undefined;
  #resolving: Promise<void> | undefined;

  constructor(options: TimeKeeperOptions) {
    this.#options = options;
    this.#table = new BootTable(options.buffer);
  }

  get known(): boolean {
    return this.#options.clock.boot !== undefined;
  }

  /** For the uplink: the gateway is asked only while nobody else knows. */
  needed = (): boolean => !this.known;

  get provisionalStartUs(): number {
    return this.#options.clock.provisionalStartUs;
  }

  /** False when nothing can wait that has a provisional time. */
  get mayBeProvisional(): boolean {
    return this.#table.entries.length > 0;
  }

  /** Before any source: what they say from now on has the right slot. */
  async start(): Promise<void> {
    const { time, clock, buffer } = this.#options;
    await this.#table.read();
    // This boot's moment stays: two starts in one boot that know it differently would set time back.
    if (buffer.usage().waitingRecords === 0) await this.#table.forgetAllBut(time.bootId);
    this.#current = this.#table.entries.find(({ bootId }) => bootId === time.bootId);
    const before = this.#current?.moment;
    if (before !== undefined && before.by !== "estimated") clock.set({ ...before, by: before.by });
    else if (time.hasClock && time.wallUs() >= CLOCK_SET_US)
      await this.#resolveByWall("system", SYSTEM_BOUND_US);
    else if (await this.#trustsKernel()) await this.#resolveByWall("ntp", NTP_BOUND_US);
    else {
      this.#current ??= await this.#table.add(time.bootId);
      clock.useSlot(this.#current.slot);
    }
    this.#loop ??= this.#run();
  }

  async #run(): Promise<void> {
    const { log, clock, askEveryMs = 10_000 } = this.#options;
    const { signal } = this.#stop;
    let keptMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      try {
        if (clock.boot === undefined) await this.#look();
        else if (clock.monotonicMs() - keptMs > KEEP_LAST_KNOWN_MS) {
          keptMs = clock.monotonicMs();
          await this.#table.save([], clock.nowUs());
        }
      } catch (error) {
        if (!signal.aborted) log.warn({ error: describeError(error) }, "the time cannot be kept");
      }
      await pause(askEveryMs, signal);
    }
  }

  async #look(): Promise<void> {
    if (await this.#trustsKernel()) return this.#resolveByWall("ntp", NTP_BOUND_US);
    const upMs = this.#options.linkUpMs();
    if (upMs !== undefined && upMs > ANSWER_WITHIN_MS && this.#options.time.wallUs() >= CLOCK_SET_US) {
      await this.#resolveByWall("system", SYSTEM_BOUND_US);
    }
  }

  async #trustsKernel(): Promise<boolean> {
    const { time } = this.#options;
    return (await time.synchronised()) && time.wallUs() >= CLOCK_SET_US;
  }

  #resolveByWall(by: TimeKnownBy, boundUs: number): Promise<void> {
    const { time } = this.#options;
    return this.#resolve({ utcUs: time.wallUs() - time.bootUs(), by, boundUs });
  }

  /** The gateway was asked what time it is. Only the first answer counts. */
  heard = ({ utcUs, atMs, boundUs }: GatewayTime): void => {
    if (this.known || utcUs < CLOCK_SET_US) return;
    const heardUs = utcUs - atMs * 1_000;
    const systemUs = this.#options.time.wallUs() - this.#options.time.bootUs();
    // A system's clock that the answer does not contradict is right: the answer came late, it did not.
    const agrees = Math.abs(systemUs - heardUs) <= Math.max(boundUs, AGREES_WITHIN_US);
    this.#resolve({ utcUs: agrees ? systemUs : heardUs, by: "gateway", boundUs }).catch((error: unknown) => {
      this.#options.log.warn({ error: describeError(error) }, "the gateway's time cannot be kept");
    });
  };

  #resolve(moment: BootMoment): Promise<void> {
    this.#resolving ??= this.#bringToUtc(moment).finally(() => {
      this.#resolving = undefined;
    });
    return this.#resolving;
  }

  /** On disk first: after a crash the same records get the same times again. */
  async #bringToUtc(moment: BootMoment): Promise<void> {
    const { clock, time, log } = this.#options;
    if (this.known) return;
    const nowUs = moment.utcUs + time.bootUs();
    const estimated = estimates(this.#table.entries, this.#current, moment.utcUs);
    const changed = [...estimated];
    if (this.#current !== undefined) changed.push({ ...this.#current, moment });
    await this.#table.save(changed, nowUs);
    this.#current = changed.find(({ slot }) => slot === this.#current?.slot);
    clock.set(moment);
    log.info({ by: moment.by, boundMs: Math.round(moment.boundUs / 1_000) }, "the time is known");
    for (const wake of this.#waiters) wake();
    this.#waiters.clear();
    this.#tellEstimates(estimated);
  }

  /**
   * A consumer can see in the stream of gaps whose times are not what they say. Not waited for, as a
   * buffer that is full waits for the uplink; a crash before it is stored loses this report alone.
   */
  #tellEstimates(estimated: readonly BootEntry[]): void {
    const { buffer, device, log } = this.#options;
    const gaps = estimated.map(({ bootId, moment }) => ({
      sensor: "*",
      stream: "*",
      reason: `the times of boot ${bootId} are estimated`,
      fromUs: Math.round(moment!.utcUs - moment!.boundUs),
      toUs: Math.round(moment!.utcUs + moment!.boundUs),
    }));
    if (gaps.length === 0) return;
    log.warn({ boots: gaps.length }, "earlier boots never knew the time; their records have estimated ones");
    buffer.append(gaps.map((gap) => gapRecord(device, gap))).catch((error: unknown) => {
      log.error({ error: describeError(error) }, "the bounds of estimated times are not recorded");
    });
  }

  /** The boot of a provisional time, once it is known; undefined until then. */
  momentOf(timeUs: number): KnownMoment | undefined {
    // What was written before the slot was known, such as a report of damage, is of this boot.
    const entry = this.#table.get(takenApart(timeUs).slot) ?? this.#current;
    return entry?.moment ?? this.#options.clock.boot;
  }

  /** Resolves when the time is known, or `signal` aborts. */
  async whenKnown(signal: AbortSignal): Promise<void> {
    if (this.known || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        signal.removeEventListener("abort", done);
        this.#waiters.delete(done);
        resolve();
      };
      this.#waiters.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  /** Safe to call twice. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#resolving?.catch(() => {});
  }
}

/** Boots of which nobody learnt the time lie evenly between what is known before and after them. */
export function estimates(
  entries: readonly BootEntry[],
  current: BootEntry | undefined,
  nextUtcUs: number,
): BootEntry[] {
  const unknown = entries.filter(({ slot, moment }) => moment === undefined && slot !== current?.slot);
  return unknown.map((entry, i) => {
    const fromUs = entry.afterUs > 0 ? Math.min(entry.afterUs, nextUtcUs) : nextUtcUs - WITHOUT_BOUND_US;
    const spanUs = nextUtcUs - fromUs;
    const utcUs = Math.round(fromUs + (spanUs * (i + 1)) / (unknown.length + 1));
    const boundUs = Math.max(utcUs - fromUs, nextUtcUs - utcUs);
    return { ...entry, moment: { utcUs, by: "estimated", boundUs } };
  });
}

/** A device that never knew the time was made at most a year ago. */
const WITHOUT_BOUND_US = 365 * 86_400_000_000;
