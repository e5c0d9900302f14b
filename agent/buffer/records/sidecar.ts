/**
 * What the record buffer remembers beside its databases: each epoch's head and tail.
 *
 * `sidecar` is replaced by rename and synced; it is written when epochs come and go. `ends` holds the
 * same in two slots that are overwritten in turn behind each commit and each acknowledgement, without
 * a sync: after a kill it is exact, after a power cut as old as the kernel's write-back lets it be.
 * Both are lower bounds. They are written after what they promise, so they never promise too much:
 * what they name and the databases lack is lost, and not a write that was under way.
 */
import { readFileSync, writeSync } from "node:fs";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { type Epoch, epochName } from "../../../protocol/frame.ts";
import { checkedLine, crcOf } from "../../../runtime/checked-line.ts";
import { writeDurably } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";

export const SIDECAR_VERSION = 2;
/** A slot has pages of its own, so that writing one never harms the other. */
const SLOT_BYTES = 4_096;
/** Those that fit into a slot whatever their numbers are; what becomes of others stands in `sidecar` alone. */
export const SLOT_EPOCHS = 16;

export interface SidecarEpoch {
  readonly start: number;
  readonly epoch: Epoch;
  /** The frame up to which the epoch was known to be on disk. */
  readonly last: bigint;
  /** The frame up to which all were acknowledged or dropped then. */
  readonly removedTo: bigint;
  /** How many records waited between the two. */
  readonly waitingRecords: number;
  /** Ranges between the two that are in no part, and were reported. */
  readonly gone: readonly (readonly [bigint, bigint])[];
}

export interface Sidecar {
  readonly device: string;
  /** Rises with each writing of `sidecar` or `ends`: the higher one is the later. */
  readonly serial: number;
  /** The highest epoch start ever used; no lower one is used again. */
  readonly epochStart: number;
  /** In `sidecar` all that are not forgotten: an earlier one that is not here must never be sent again. */
  readonly epochs: readonly SidecarEpoch[];
  /** The marks' generation and how often it was written to (mark-store.ts). */
  readonly marks: readonly [generation: number, batches: number];
  /** When the oldest frame that waited then had been stored, µs; 0 when none waited. */
  readonly oldestUs: number;
  readonly writtenUs: number;
}

/** The folder was made by another version or for another device; guessing would mix their data. */
export class ForeignBufferError extends HeadwaterError {
  constructor(file: string, detail: string, hint?: string) {
    super("BUFFER_FOREIGN", {
      message: `${file}: ${detail}`,
      hint: hint ?? "give this agent a dataDir of its own, or restore the old device name",
    });
  }
}

/** @returns undefined when there is no such file; "damaged" when it cannot be believed. */
export async function readSidecar(file: string, device: string): Promise<Sidecar | undefined | "damaged"> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  return text === undefined ? undefined : parse(text, file, device);
}

export async function writeSidecar(file: string, sidecar: Sidecar): Promise<void> {
  await writeDurably(file, format(sidecar), 0o600);
}

function format(sidecar: Sidecar): string {
  const json = JSON.stringify({
    version: SIDECAR_VERSION,
    ...sidecar,
    epochs: sidecar.epochs.map(({ start, epoch, last, removedTo, waitingRecords, gone }) => [
      start,
      epochName(epoch),
      String(last),
      String(removedTo),
      waitingRecords,
      gone.map((range) => range.map(String)),
    ]),
  });
  return checkedLine(json);
}

/** @throws ForeignBufferError */
function parse(text: string, file: string, device: string): Sidecar | "damaged" {
  const [json = "", crc = "", end] = text.split("\n");
  if (crc !== crcOf(json) || end === undefined) return "damaged";
  const raw = JSON.parse(json) as Omit<Sidecar, "epochs"> & {
    version: number;
    epochs: [number, string, string, string, number, [string, string][]][];
  };
  if (raw.version !== SIDECAR_VERSION) {
    throw new ForeignBufferError(
      file,
      `format ${raw.version}; this program reads ${SIDECAR_VERSION}`,
      "let the version that made it drain it, or move the folder away",
    );
  }
  if (raw.device !== device) throw new ForeignBufferError(file, `belongs to the device ${raw.device}`);
  return {
    ...raw,
    epochs: raw.epochs.map(([start, epoch, last, removedTo, waitingRecords, gone]) => ({
      start,
      epoch: BigInt(`0x${epoch}`),
      last: BigInt(last),
      removedTo: BigInt(removedTo),
      waitingRecords,
      gone: gone.map(([from, to]) => [BigInt(from), BigInt(to)] as const),
    })),
  };
}

/** The file of two slots. */
export class EndsFile {
  readonly #handle: FileHandle;
  readonly #slot = Buffer.alloc(SLOT_BYTES);
  #turn = 0;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** @returns the newest slot that can be believed; "damaged" when there is none */
  static read(file: string, device: string): Sidecar | undefined | "damaged" {
    let bytes: Buffer;
    try {
      bytes = readFileSync(file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
    let newest: Sidecar | "damaged" = "damaged";
    for (const at of [0, SLOT_BYTES]) {
      const text = bytes.toString("utf8", at, at + SLOT_BYTES);
      const slot = text.length === 0 ? "damaged" : parse(text, file, device);
      if (slot === "damaged") continue;
      if (newest === "damaged" || slot.serial > newest.serial) newest = slot;
    }
    return newest;
  }

  /** Makes the file anew, with both slots filled and synced. */
  static async make(file: string, sidecar: Sidecar): Promise<EndsFile> {
    const slot = Buffer.alloc(SLOT_BYTES);
    slot.write(format(shortened(sidecar)));
    await writeDurably(file, Buffer.concat([slot, slot]), 0o600);
    return new EndsFile(await open(file, "r+"));
  }

  /** Into the page cache: about as long as a system call takes. */
  write(sidecar: Sidecar): void {
    const length = this.#slot.write(format(shortened(sidecar)));
    this.#turn ^= 1;
    writeSync(this.#handle.fd, this.#slot, 0, length, this.#turn * SLOT_BYTES);
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * The oldest ones, whose heads move, and the last two, whose tails do: while an epoch is being begun
 * the one before it is still written to. What is gone stands in `sidecar`.
 */
function shortened(sidecar: Sidecar): Sidecar {
  const all = sidecar.epochs;
  const kept = all.length <= SLOT_EPOCHS ? all : [...all.slice(0, SLOT_EPOCHS - 2), ...all.slice(-2)];
  return { ...sidecar, epochs: kept.map((epoch) => ({ ...epoch, gone: [] })) };
}
