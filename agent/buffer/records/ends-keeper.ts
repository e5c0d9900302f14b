/** Keeps the sidecar and the ends (sidecar.ts) as the ledger and the marks are. */
import type { Clock } from "../../../runtime/clock.ts";
import type { EpochLedger } from "./epoch-ledger.ts";
import type { MarkStore } from "./mark-store.ts";
import { endsFile, sidecarFile } from "./record-folder.ts";
import { EndsFile, type Sidecar, SLOT_EPOCHS, writeSidecar } from "./sidecar.ts";

/** So much older than the truth the ends may be after a power cut. */
const SYNC_EVERY_MS = 5_000;

export interface EndsKeeperOptions {
  readonly dir: string;
  readonly device: string;
  readonly clock: Clock;
  readonly ledger: EpochLedger;
  readonly marks: MarkStore;
  /** The highest that was written so far. */
  readonly serial: number;
  /** A write failed. */
  readonly onFailure: (cause: unknown) => Error;
}

export class EndsKeeper {
  readonly #options: EndsKeeperOptions;
  #serial: number;
  #ends: EndsFile | undefined;
  #syncedMs: number;
  #sidecar: Promise<void> = Promise.resolve();

  constructor(options: EndsKeeperOptions) {
    this.#options = options;
    this.#serial = options.serial;
    this.#syncedMs = options.clock.monotonicMs();
  }

  /** The ends first: where there is a sidecar, there are ends. */
  async start(): Promise<void> {
    this.#ends = await EndsFile.make(endsFile(this.#options.dir), this.#state());
    await this.writeSidecar();
  }

  #state(): Sidecar {
    const { device, ledger, marks, clock } = this.#options;
    this.#serial += 1;
    return {
      device,
      serial: this.#serial,
      epochStart: ledger.epochs.at(-1)!.start,
      epochs: ledger.epochs.map((state) => ({
        ...state,
        gone: state.told.filter(([, to]) => to > state.removedTo),
      })),
      marks: marks.state,
      oldestUs: ledger.oldestUs ?? 0,
      writtenUs: clock.nowUs(),
    };
  }

  /** Not synced, unless the last time was long ago. A failure here is a failed write like any other. */
  write(): void {
    try {
      this.#ends?.write(this.#state());
    } catch (error) {
      this.#options.onFailure(error);
    }
    if (this.#options.clock.monotonicMs() - this.#syncedMs < SYNC_EVERY_MS) return;
    this.sync().catch((error: unknown) => this.#options.onFailure(error));
  }

  /** What was written is on disk when it resolves. */
  async sync(): Promise<void> {
    this.#syncedMs = this.#options.clock.monotonicMs();
    await this.#ends?.sync();
  }

  /** The heads of all epochs are on disk when it resolves. */
  async syncHeads(): Promise<void> {
    // Where links come and go there are more epochs than the file of ends has room for.
    if (this.#options.ledger.epochs.length > SLOT_EPOCHS) await this.writeSidecar();
    else await this.sync();
  }

  /** Durable when it resolves; one at a time. */
  writeSidecar(): Promise<void> {
    const { dir, onFailure } = this.#options;
    this.#sidecar = this.#sidecar
      .then(() => writeSidecar(sidecarFile(dir), this.#state()))
      .catch((error: unknown) => {
        throw onFailure(error);
      });
    // Those who must know wait for it; for the others the failure is remembered.
    this.#sidecar.catch(() => {});
    return this.#sidecar;
  }

  /** @param good false after a failed write: what is on disk stays as it is */
  async close(good: boolean): Promise<void> {
    if (good) await this.writeSidecar().catch(() => undefined);
    await this.#sidecar.catch(() => undefined);
    await this.#ends?.close();
    this.#ends = undefined;
  }
}
