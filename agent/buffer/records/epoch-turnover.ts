/** Begins epochs while the buffer runs, and lets go of those of which no frame is left. */
import type { Epoch } from "../../../protocol/frame.ts";
import { syncFolder } from "../../../runtime/durable.ts";
import type { EndsKeeper } from "./ends-keeper.ts";
import { type EpochLedger, newEpochState } from "./epoch-ledger.ts";
import type { RecordChain } from "./record-chain.ts";

export interface EpochTurnoverOptions {
  /** Where the chain's parts are. */
  readonly chainDir: string;
  readonly ledger: EpochLedger;
  readonly chain: RecordChain;
  readonly ends: EndsKeeper;
  /** A new epoch's id. */
  readonly random: () => Epoch;
  /** A write failed. */
  readonly onFailure: (cause: unknown) => Error;
}

export class EpochTurnover {
  readonly #options: EpochTurnoverOptions;
  /** Epochs whose heads are on disk. */
  readonly #headSynced = new Set<number>();
  #beginning: Promise<Epoch> | undefined;

  constructor(options: EpochTurnoverOptions) {
    this.#options = options;
  }

  /**
   * The sidecar names the new epoch before any frame of it exists: an epoch that it does not name is
   * taken for a forgotten one. A crash in between leaves an epoch without frames, which the next open
   * declares drained. What is being committed meanwhile is still of the old one.
   */
  begin(): Promise<Epoch> {
    this.#beginning ??= this.#begin().finally(() => {
      this.#beginning = undefined;
    });
    return this.#beginning;
  }

  async #begin(): Promise<Epoch> {
    const { ledger, chain, ends, random, onFailure } = this.#options;
    const next = newEpochState(ledger.epochs.at(-1)!.start + 1, random());
    ledger.announce(next);
    await ends.writeSidecar();
    // In one turn: a commit before it wrote, and one behind it will write, where its epoch stands.
    ledger.enter(next);
    await chain.beginEpoch(next).catch((error: unknown) => {
      throw onFailure(error);
    });
    return next.epoch;
  }

  /** As `RecordBuffer.drainedEpochs`. */
  async drained(): Promise<Epoch[]> {
    const { ledger, ends } = this.#options;
    const drained = ledger.drained();
    const unsynced = drained.filter((state) => !this.#headSynced.has(state.start));
    if (unsynced.length > 0) {
      await ends.writeSidecar();
      for (const state of unsynced) this.#headSynced.add(state.start);
    }
    return drained.map((state) => state.epoch);
  }

  /** Its frames go for good first: a sidecar that does not name it would let them come back as new ones. */
  async forget(epoch: Epoch): Promise<void> {
    const { chainDir, ledger, chain, ends } = this.#options;
    const state = ledger.of(epoch);
    if (state === undefined || state === ledger.current) return;
    await chain.settled();
    await syncFolder(chainDir);
    if (ledger.of(epoch) === undefined) return;
    ledger.forget(state);
    await ends.writeSidecar();
  }

  /** Resolves when no epoch is being begun. */
  async settled(): Promise<void> {
    await this.#beginning?.catch(() => undefined);
  }
}
