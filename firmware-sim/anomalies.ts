/**
 * Which sensor misbehaves when, and how. Time is cut into slots of `anomalies.everySeconds`; in each
 * slot one member of a group has one anomaly. All follows from seed, group and slot; nothing from the clock.
 */
import { below, fraction } from "./random.ts";

/**
 * `spike`: one or a few values far off. `drift`: the value creeps away. `stuck`: it repeats itself.
 * `dropout`: the sensor says nothing. `silenced` is a dropout that was asked for as a fault.
 */
export type AnomalyKind = "spike" | "drift" | "stuck" | "dropout" | "silenced";

export interface Anomaly {
  readonly kind: AnomalyKind;
  /** Number of the first and of the last message that it touches. */
  readonly first: number;
  readonly last: number;
}

/** How much of a slot each kind lasts. A spike is counted in messages. */
const SLOT_SHARE = { drift: 0.35, stuck: 0.25, dropout: 0.2 } as const;
const MAX_SPIKE_MESSAGES = 3;
const KINDS: readonly AnomalyKind[] = ["spike", "drift", "stuck", "dropout"];

export interface PlanOptions {
  readonly seed: number;
  readonly group: string;
  readonly members: readonly string[];
  readonly everySeconds: number;
  readonly hz: number;
}

export class AnomalyPlan {
  readonly #options: PlanOptions;
  readonly #slotMessages: number;

  constructor(options: PlanOptions) {
    this.#options = options;
    this.#slotMessages = Math.max(4, Math.round(options.everySeconds * options.hz));
  }

  slotOf(n: number): number {
    return Math.floor(n / this.#slotMessages);
  }

  /** The anomaly of `member` in this slot, if it is the one that has it. It ends within the slot. */
  inSlot(member: string, slot: number): Anomaly | undefined {
    const { seed, group, members } = this.#options;
    if (members[below(members.length, seed, `${group}/who`, slot)] !== member) return undefined;
    const kind = KINDS[below(KINDS.length, seed, `${group}/kind`, slot)]!;
    const offset = Math.floor((0.2 + 0.3 * fraction(seed, `${group}/start`, slot)) * this.#slotMessages);
    const first = slot * this.#slotMessages + offset;
    return { kind, first, last: first + this.#length(kind, slot) - 1 };
  }

  /** The anomaly that message n of `member` is part of. */
  at(member: string, n: number): Anomaly | undefined {
    const anomaly = this.inSlot(member, this.slotOf(n));
    return anomaly !== undefined && n >= anomaly.first && n <= anomaly.last ? anomaly : undefined;
  }

  #length(kind: AnomalyKind, slot: number): number {
    if (kind === "spike" || kind === "silenced") {
      const most = Math.min(MAX_SPIKE_MESSAGES, Math.floor(this.#slotMessages / 2));
      return 1 + below(most, this.#options.seed, `${this.#options.group}/length`, slot);
    }
    return Math.max(1, Math.floor(SLOT_SHARE[kind] * this.#slotMessages));
  }
}
