/**
 * What a device is asked for in each round, where it was read at once: smaller requests take the place of one that is
 * refused. One that is away, refuses everything for a time or changes its mind is asked for all at once again.
 */
import type { RegisterConfig } from "../../../config/source-config.ts";
import { type ModbusRequest, splitRequest } from "../decode/modbus-rtu.ts";

/** A device that refuses every single value, as an inverter at night, is asked for them once in so many rounds. */
const MAX_WHOLE_ROUNDS = 16;

export class ModbusPlan {
  readonly #whole: ModbusRequest;
  #requests: readonly ModbusRequest[];
  /** Single values that it has refused. */
  readonly #lacking = new Set<RegisterConfig>();
  /** For so many rounds more it is asked for nothing less than the whole. */
  #wholeRounds = 0;
  #nextWholeRounds = 1;
  #gave = true;
  #allRefused = true;
  #changedItsMind = false;

  constructor(whole: ModbusRequest) {
    this.#whole = whole;
    this.#requests = [whole];
  }

  /** What to ask for, in order. */
  beginRound(): readonly ModbusRequest[] {
    if (this.#wholeRounds > 0) this.#wholeRounds--;
    else if (this.#gave) this.#nextWholeRounds = 1;
    else if (this.#allRefused) {
      this.#wholeRounds = this.#nextWholeRounds;
      this.#nextWholeRounds = Math.min(MAX_WHOLE_ROUNDS, 2 * this.#nextWholeRounds);
    }
    if (!this.#gave || this.#changedItsMind) {
      this.#requests = [this.#whole];
      this.#lacking.clear();
    }
    this.#gave = false;
    this.#allRefused = true;
    this.#changedItsMind = false;
    return this.#requests;
  }

  given(request: ModbusRequest): void {
    this.#gave = true;
    if (this.#lacking.has(request.values[0]!)) this.#changedItsMind = true;
  }

  /** There was no answer, or none that can be read. */
  failed(): void {
    this.#allRefused = false;
  }

  /** @returns what to ask for instead; undefined where that is to be told */
  refused(request: ModbusRequest): readonly ModbusRequest[] | undefined {
    const parts = this.#wholeRounds > 0 ? undefined : splitRequest(request);
    if (parts !== undefined)
      this.#requests = this.#requests.flatMap((one) => (one === request ? parts : [one]));
    else if (request.values.length === 1) this.#lacking.add(request.values[0]!);
    return parts;
  }
}
