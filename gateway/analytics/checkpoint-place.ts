/**
 * Where a statement's checkpoint is kept: in a file of its own, replaced as a whole; or, where gateways share the
 * store, beside the consumer's positions and written with them, so that whoever gets the lease gets both.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder, writeDurably } from "../../runtime/durable.ts";
import { type Handover, HandoverDamagedError, type Offset, type ShardId } from "../streams/streams.ts";
import { AnalyticsStateError, type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";

export interface KeptCheckpoint {
  readonly checkpoint: Checkpoint;
  /** It was written together with the consumer's positions: neither is older than the other. */
  readonly isWithPositions: boolean;
}

export interface CheckpointPlace {
  /** For messages. */
  readonly name: string;
  /** Undefined when there is none. @throws AnalyticsStateError when it is damaged or of another version */
  read(): Promise<KeptCheckpoint | undefined>;
  /** Resolves when it is kept. @param positions of the consumer, which move in the same write where both are kept together */
  write(checkpoint: Checkpoint, positions: ReadonlyMap<ShardId, Offset>): Promise<void>;
}

export class CheckpointFile implements CheckpointPlace {
  readonly name: string;
  readonly #statement: string;

  /** @param path in a folder of the statement's own, which is made when it is needed */
  constructor(path: string, statement: string) {
    this.name = path;
    this.#statement = statement;
  }

  async read(): Promise<KeptCheckpoint | undefined> {
    const bytes = await readFile(this.name).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    if (bytes === undefined) return undefined;
    return {
      checkpoint: await decodeCheckpoint(bytes, this.name, this.#statement),
      isWithPositions: false,
    };
  }

  async write(checkpoint: Checkpoint): Promise<void> {
    await mkdir(dirname(this.name), { recursive: true, mode: 0o700 });
    await writeDurably(this.name, Buffer.concat(await encodeCheckpoint(checkpoint)));
  }

  async remove(): Promise<void> {
    await rm(this.name, { force: true });
    await syncFolder(dirname(this.name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }
}

/** What the last holder of the lease left. Where nobody left anything, it is what an earlier version kept in its file. */
export class HandedCheckpoint implements CheckpointPlace {
  readonly name = "what was kept on the NATS cluster";
  readonly #statement: string;
  readonly #handover: Handover;
  readonly #file: CheckpointFile;
  #mayHaveFile = true;

  constructor(statement: string, handover: Handover, file: CheckpointFile) {
    this.#statement = statement;
    this.#handover = handover;
    this.#file = file;
  }

  async read(): Promise<KeptCheckpoint | undefined> {
    let bytes: Buffer | undefined;
    try {
      bytes = await this.#handover.keptBytes();
    } catch (error) {
      if (!(error instanceof HandoverDamagedError)) throw error;
      throw new AnalyticsStateError(this.#statement, `${this.name} is damaged`, error);
    }
    if (bytes === undefined) return this.#file.read();
    return {
      checkpoint: await decodeCheckpoint(bytes, this.name, this.#statement),
      isWithPositions: true,
    };
  }

  async write(checkpoint: Checkpoint, positions: ReadonlyMap<ShardId, Offset>): Promise<void> {
    await this.#handover.keepBytes(await encodeCheckpoint(checkpoint), positions);
    if (!this.#mayHaveFile) return;
    // An earlier version must not find it: it would go on from long ago.
    await this.#file.remove();
    this.#mayHaveFile = false;
  }
}
