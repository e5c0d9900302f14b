/** Tells of what the buffer lost or dropped: in the log, in its counts, and in the stream of gaps. */
import type { Clock } from "../../../runtime/clock.ts";
import { describeError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { keepAside } from "../level/damaged-folders.ts";
import { BufferDamagedError, type BufferRecord } from "../record-buffer.ts";
import type { ChainPart } from "./chain-part.ts";
import type { EndsKeeper } from "./ends-keeper.ts";
import type { EpochLedger } from "./epoch-ledger.ts";
import { type Gap, gapRecord } from "./gap-record.ts";
import type { RecordChain } from "./record-chain.ts";
import type { BufferMeters } from "./record-meters.ts";

export interface LossReportsOptions {
  /** The buffer's. */
  readonly dir: string;
  readonly device: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: EpochLedger;
  readonly chain: RecordChain;
  readonly ends: EndsKeeper;
  readonly meters: Pick<BufferMeters, "damage" | "lost">;
  /** Resolves when they are on disk; not held back by a full buffer. */
  readonly store: (records: readonly BufferRecord[]) => Promise<void>;
}

export class LossReports {
  readonly #options: LossReportsOptions;

  constructor(options: LossReportsOptions) {
    this.#options = options;
  }

  /** Found while reading. The ledger knows of its holes already. */
  async damagedPart(
    part: ChainPart,
    details: readonly string[],
    records: number,
    bytes: number,
  ): Promise<void> {
    const { dir, ledger, chain, ends } = this.#options;
    const state = ledger.at(part.epochStart);
    if (state !== undefined) {
      state.waitingRecords -= records;
      state.waitingBytes -= bytes;
    }
    part.records -= records;
    part.bytes -= bytes;
    // That it cannot be kept, as on a full disk, is no reason to be silent: it is looked at once only.
    const keptIn = await keepAside(dir, [chain.folderOf(part)]).catch(
      (error: unknown) => `no folder: ${describeError(error)}`,
    );
    const what = `${details.slice(0, 20).join("; ")}; kept in ${keptIn}`;
    await this.damage(what, records, part.oldestUs, part.newestUs);
    await chain.rename(part);
    ends.write();
  }

  /** Resolves when the report is on disk. */
  async damage(
    what: string,
    records: number,
    fromUs: number,
    toUs = this.#options.clock.nowUs(),
  ): Promise<void> {
    const { dir, log, meters } = this.#options;
    const reason = describeError(new BufferDamagedError(dir, `${records} records are lost: ${what}`));
    meters.damage.inc();
    meters.lost.inc(records);
    log.error({ reason, records }, "part of the record buffer is damaged");
    await this.gaps([{ stream: "*", reason: `buffer damaged: ${reason}`, fromUs, toUs, records }]);
  }

  /**
   * Resolves when the report is on disk.
   * @param carried reports that stood in what goes, and are told again
   */
  async gaps(gaps: readonly Gap[], carried: readonly BufferRecord[] = []): Promise<void> {
    const { device, clock, store } = this.#options;
    await store([...gaps.map((gap) => gapRecord(device, clock.nowUs(), gap)), ...carried]);
  }
}
