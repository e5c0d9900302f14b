/**
 * What the record buffer remembers beside LevelDB, in a file of its own, because LevelDB can lose
 * data without saying so. It is a lower bound: each epoch named here existed, and its frames up to
 * `last` were once on disk. It is written after what it promises, so it never promises too much;
 * it is written seldom, so it may promise too little.
 */
import { readFile } from "node:fs/promises";
import type { Epoch } from "../../protocol/frame.ts";
import { epochName } from "../../protocol/frame.ts";
import { crc32c } from "../../runtime/crc32c.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

const SIDECAR_VERSION = 1;

export interface SidecarEpoch {
  readonly start: number;
  readonly epoch: Epoch;
  /** The frame up to which the epoch was known to be on disk. */
  readonly last: bigint;
  /** The frame up to which all were acknowledged or dropped then. */
  readonly removedTo: bigint;
}

export interface Sidecar {
  readonly device: string;
  /** The highest epoch start ever used; also when LevelDB forgot everything, no lower one is used again. */
  readonly epochStart: number;
  /** Epochs that started before this one are forgotten by the gateway: their frames must never be sent again. */
  readonly floorStart: number;
  readonly epochs: readonly SidecarEpoch[];
  /** When the oldest frame that waited then had been stored, µs; 0 when none waited. */
  readonly oldestUs: number;
  readonly writtenUs: number;
}

/** The folder was made by another version or for another device; guessing would mix their data. */
export class ForeignBufferError extends HeadwaterError {
  constructor(file: string, detail: string) {
    super("BUFFER_FOREIGN", {
      message: `${file}: ${detail}`,
      hint: "give this agent a dataDir of its own, or restore the old device name",
    });
  }
}

/** @returns undefined when there is no such file; "damaged" when it cannot be believed. */
export async function readSidecar(file: string, device: string): Promise<Sidecar | undefined | "damaged"> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const [json = "", crc = ""] = text.split("\n");
  if (crc !== crcOf(json)) return "damaged";
  const raw = JSON.parse(json) as Omit<Sidecar, "epochs"> & {
    version: number;
    epochs: { start: number; epoch: string; last: string; removedTo: string }[];
  };
  if (raw.version !== SIDECAR_VERSION) {
    throw new ForeignBufferError(file, `format ${raw.version}; this program reads ${SIDECAR_VERSION}`);
  }
  if (raw.device !== device) throw new ForeignBufferError(file, `belongs to the device ${raw.device}`);
  return {
    ...raw,
    epochs: raw.epochs.map((epoch) => ({
      start: epoch.start,
      epoch: BigInt(`0x${epoch.epoch}`),
      last: BigInt(epoch.last),
      removedTo: BigInt(epoch.removedTo),
    })),
  };
}

export async function writeSidecar(file: string, sidecar: Sidecar): Promise<void> {
  const json = JSON.stringify({
    version: SIDECAR_VERSION,
    ...sidecar,
    epochs: sidecar.epochs.map((epoch) => ({
      start: epoch.start,
      epoch: epochName(epoch.epoch),
      last: epoch.last.toString(),
      removedTo: epoch.removedTo.toString(),
    })),
  });
  await writeDurably(file, `${json}\n${crcOf(json)}\n`);
}

function crcOf(text: string): string {
  return crc32c(Buffer.from(text)).toString(16).padStart(8, "0");
}
