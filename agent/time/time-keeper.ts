/**
 * Finds out what time it is, and brings what was written before to UTC: once for each boot.
 *
 *   a clock that runs on while the device is off  → system
 *   a gateway was asked                           → gateway
 *   the kernel says that NTP keeps its clock      → ntp
 *
 * The first that knows is believed; a better one, further down, that knows later, or a gateway that
 * is asked again, corrects what is said from then on: crystals drift by seconds a day.
 * Earlier boots that ended before any of these are estimated, between what is known before and after.
 * docs/design/0022-time.md says why.
 */
import { pause } from "../../runtime/backoff.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { RecordBuffer } from "../buffer/record-buffer.ts";
import { gapRecord } from "../sources/reading-record.ts";
import type { AgentClock, BootMoment, TimeKnownBy } from "./agent-clock.ts";
import { type BootEntry, BootTable, type KnownMoment, type LastKnown } from "./boot-table.ts";
import type { DeviceTime } from "./device-time.ts";
import { CLOCK_SET_US, FIRST_SLOT, isProvisional, takenApart, trueUs } from "./provisional-time.ts";

export interface TimeKeeperOptions {
  readonly device: string;
  readonly time: DeviceTime;
  readonly clock: AgentClock;
  readonly buffer: RecordBuffer;
  /** Whether something may wait that was stored in earlier boots; the record buffer is asked unless given. */
  readonly waits?: () => boolean;
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
/** While the time is known, but could be known better. */
const ASK_GATEWAY_AGAIN_MS = 600_000;
const ASK_KERNEL_AGAIN_MS = 300_000;

export class TimeKeeper {
  readonly #options: TimeKeeperOptions;
  readonly #table: BootTable;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<() => void>();
  #current: BootEntry | undefined;
  #loop: Promise<void> | undefined;
  #resolving: Promise<void> | undefined;
  #heardMs = Number.NEGATIVE_INFINITY;

  constructor(options: TimeKeeperOptions) {
    this.#options = options;
    this.#table = new BootTable(options.buffer);
  }

  get known(): boolean {
    return this.#options.clock.boot !== undefined;
  }

  /** For the uplink: NTP is never worse than the gateway. */
  needed = (): boolean => {
    const { clock } = this.#options;
    if (clock.boot === undefined) return true;
    return clock.boot.by !== "ntp" && clock.monotonicMs() - this.#heardMs >= ASK_GATEWAY_AGAIN_MS;
  };

  /** False when nothing can wait that has a provisional time. */
  get mayBeProvisional(): boolean {
    return this.#table.entries.length > 0;
  }

  /** Before any source: what they say from now on has the right slot. */
  async start(): Promise<void> {
    const { time, clock, buffer, waits = () => buffer.usage().waitingRecords > 0 } = this.#options;
    await this.#table.read();
    const waiting = waits();
    if (!waiting) await this.#table.forgetAllBut(time.bootId);
    this.#current = this.#table.entries.find(({ bootId }) => bootId === time.bootId);
    const before = this.#table.lastMoment(time.bootId) ?? this.#current?.moment;
    // Two starts in one boot that knew the time differently would set it back.
    if (before !== undefined && before.by !== "estimated") clock.set({ ...before, by: before.by });
    else {
      const known = await this.#knownAtOnce();
      // Also where it is known: a buffer that was opened before may have told of damage meanwhile.
      const told = waiting && clock.wasProvisional;
      if (known === undefined || told) this.#current ??= await this.#table.add(time.bootId);
      if (this.#current !== undefined) clock.useSlot(this.#current.slot);
      if (known !== undefined) await this.#resolve(known);
    }
    this.#loop ??= this.#run();
  }

  async #knownAtOnce(): Promise<BootMoment | undefined> {
    const { time } = this.#options;
    if (time.hasClock && time.wallUs() >= CLOCK_SET_US) return this.#byWall("system", SYSTEM_BOUND_US);
    return (await this.#trustsKernel()) ? this.#byWall("ntp", NTP_BOUND_US) : undefined;
  }

  async #run(): Promise<void> {
    const { log, clock, askEveryMs = 10_000 } = this.#options;
    const { signal } = this.#stop;
    let keptMs = Number.NEGATIVE_INFINITY;
    let askedMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const nowMs = clock.monotonicMs();
      try {
        if (clock.boot === undefined) await this.#look();
        else if (clock.boot.by !== "ntp" && nowMs - askedMs > ASK_KERNEL_AGAIN_MS) {
          askedMs = nowMs;
          if (await this.#trustsKernel()) await this.#correct(this.#byWall("ntp", NTP_BOUND_US));
        } else if (nowMs - keptMs > KEEP_LAST_KNOWN_MS) {
          keptMs = nowMs;
          await this.#table.save([], this.#lastKnown(clock.boot));
        }
      } catch (error) {
        if (!signal.aborted) log.warn({ error: describeError(error) }, "the time cannot be kept");
      }
      await pause(askEveryMs, signal);
    }
  }

  async #look(): Promise<void> {
    if (await this.#trustsKernel()) return this.#resolve(this.#byWall("ntp", NTP_BOUND_US));
    const upMs = this.#options.linkUpMs();
    if (upMs !== undefined && upMs > ANSWER_WITHIN_MS && this.#options.time.wallUs() >= CLOCK_SET_US) {
      await this.#resolve(this.#byWall("system", SYSTEM_BOUND_US));
    }
  }

  async #trustsKernel(): Promise<boolean> {
    const { time } = this.#options;
    return (await time.synchronised()) && time.wallUs() >= CLOCK_SET_US;
  }

  #byWall(by: TimeKnownBy, boundUs: number): BootMoment {
    const { time } = this.#options;
    return { utcUs: time.wallUs() - time.bootUs(), by, boundUs };
  }

  #lastKnown(moment: BootMoment): LastKnown {
    const { time } = this.#options;
    return { utcUs: moment.utcUs + time.bootUs(), bootId: time.bootId, moment };
  }

  /** The gateway was asked what time it is. Only the first answer counts. */
  heard = ({ utcUs, atMs, boundUs }: GatewayTime): void => {
    const { clock, time, log } = this.#options;
    if (!this.needed() || utcUs < CLOCK_SET_US) return;
    this.#heardMs = clock.monotonicMs();
    const heardUs = utcUs - atMs * 1_000;
    const agreesWith = (bootUtcUs: number): boolean =>
      Math.abs(bootUtcUs - heardUs) <= Math.max(boundUs, AGREES_WITHIN_US);
    // A clock that the answer does not contradict is right: the answer came late, it did not.
    const ours = [clock.boot?.utcUs, time.wallUs() - time.bootUs()];
    const right = ours.find((bootUtcUs) => bootUtcUs !== undefined && agreesWith(bootUtcUs)) ?? heardUs;
    const moment: BootMoment = { utcUs: right, by: "gateway", boundUs };
    (this.known ? this.#correct(moment) : this.#resolve(moment)).catch((error: unknown) => {
      log.warn({ error: describeError(error) }, "the gateway's time cannot be kept");
    });
  };

  /** What was said with the time as it was known before stays. A crash before the write has it known as before. */
  async #correct(moment: BootMoment): Promise<void> {
    const { clock, log } = this.#options;
    const byMs = Math.round((moment.utcUs - clock.boot!.utcUs) / 1_000);
    clock.set(moment);
    await this.#table.save([], this.#lastKnown(moment));
    if (Math.abs(byMs) > AGREES_WITHIN_US / 1_000)
      log.info({ by: moment.by, byMs }, "the clock is corrected");
  }

  #resolve(moment: BootMoment): Promise<void> {
    this.#resolving ??= this.#bringToUtc(moment).finally(() => {
      this.#resolving = undefined;
    });
    return this.#resolving;
  }

  /** On disk first: after a crash the same records get the same times again. */
  async #bringToUtc(moment: BootMoment): Promise<void> {
    const { clock, log } = this.#options;
    if (this.known) return;
    const estimated = estimates(this.#table.entries, this.#current, moment.utcUs);
    const changed = [...estimated];
    if (this.#current !== undefined) changed.push({ ...this.#current, moment });
    await this.#table.save(changed, this.#lastKnown(moment));
    this.#current = changed.find(({ slot }) => slot === this.#current?.slot);
    clock.set(moment);
    log.info({ by: moment.by, boundMs: Math.round(moment.boundUs / 1_000) }, "the time is known");
    for (const wake of this.#waiters) wake();
    this.#waiters.clear();
    this.#tellEstimates(estimated);
  }

  /**
   * A consumer can see in the stream of gaps whose times are not what they say. Not waited for, as a
   * buffer that drops waits for its disk; a crash before it is stored loses this report alone.
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
    buffer.report(gaps.map((gap) => gapRecord(device, gap))).catch((error: unknown) => {
      log.error({ error: describeError(error) }, "the bounds of estimated times are not recorded");
    });
  }

  /** The boot of a provisional time, once it is known; undefined until then, and of boots long forgotten. */
  momentOf(timeUs: number): KnownMoment | undefined {
    const { slot } = takenApart(timeUs);
    // What was written before the slot was known, such as a report of damage, is of this boot.
    if (slot < FIRST_SLOT) return this.#current?.moment ?? this.#options.clock.boot;
    return this.#table.get(slot)?.moment;
  }

  /** When the oldest of what waits was stored, as far as that is known. */
  oldestInUtc(oldestUs: number | undefined): number | undefined {
    if (oldestUs === undefined || !isProvisional(oldestUs)) return oldestUs;
    const moment = this.momentOf(oldestUs);
    if (moment !== undefined) return trueUs(oldestUs, moment.utcUs);
    // Of an earlier boot, which may have been at any time: it is at least as old as this one.
    return Math.max(oldestUs, this.#options.clock.provisionalStartUs);
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
