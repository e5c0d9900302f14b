/**
 * The sidecar of the footage buffer: which units must be in the database. LevelDB alone can lose
 * them without an error, when its MANIFEST or a block of its log is damaged.
 *
 * It is written after an append and before a deletion. A crash in between leaves a unit more in the
 * database than here, which is sent (again); never a unit less, which would look like damage.
 *
 * Version 1 had no checksum: such a file is read once, as the opening writes it anew.
 */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { epochName } from "../../../protocol/frame.ts";
import { checkedLine, crcOf } from "../../../runtime/checked-line.ts";
import { writeDurably } from "../../../runtime/durable.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import type { UnitRange } from "./footage-index.ts";

const NEWLINE = 10;
const VERSION = 2;
/** Of the files that had no checksum. */
const UNCHECKED_VERSION = 1;

const sidecarSchema = z.object({
  version: z.union([z.literal(VERSION), z.literal(UNCHECKED_VERSION)]),
  epochStart: z.number().int().min(0),
  newestUs: z.record(z.string(), z.number().int()).default({}),
  waiting: z.array(
    z.object({
      camera: z.string(),
      epoch: z.string().regex(/^[0-9a-f]{16}$/),
      epochStart: z.number().int().min(0),
      first: z.number().int().min(1),
      last: z.number().int().min(1),
      fromUs: z.number().int(),
      toUs: z.number().int(),
    }),
  ),
});

export interface Sidecar {
  /** Of the newest epoch that was ever begun. */
  readonly epochStart: number;
  /** Per camera, the end of the newest unit that was ever stored, in producer time. */
  readonly newestUs: ReadonlyMap<string, number>;
  readonly waiting: readonly UnitRange[];
}

/** The folder was written by another version of this program. */
export class FootageVersionError extends HeadwaterError {
  constructor(path: string, version: unknown) {
    super("FOOTAGE_VERSION", {
      message: `${path} has version ${JSON.stringify(version)}; this program reads ${VERSION}`,
      hint: "start the version that wrote it until its footage is uploaded",
    });
  }
}

/**
 * @returns undefined when there is none; "damaged" when it cannot be believed: the database then is
 * @throws FootageVersionError
 */
export async function readSidecar(path: string): Promise<Sidecar | undefined | "damaged"> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (bytes === undefined) return undefined;
  const json = believed(bytes);
  const version = (json as { version?: unknown } | null | undefined)?.version;
  const isChecked = bytes.includes(NEWLINE);
  if (version === (isChecked ? UNCHECKED_VERSION : VERSION)) return "damaged";
  if (typeof version === "number" && version !== VERSION && version !== UNCHECKED_VERSION)
    throw new FootageVersionError(path, version);
  const parsed = sidecarSchema.safeParse(json);
  if (!parsed.success) return "damaged";
  const waiting = parsed.data.waiting.map((range) => ({
    ...range,
    epoch: BigInt(`0x${range.epoch}`),
    first: BigInt(range.first),
    last: BigInt(range.last),
  }));
  const newestUs = new Map(Object.entries(parsed.data.newestUs));
  return { epochStart: parsed.data.epochStart, newestUs, waiting };
}

/** The value of the file's JSON, if its checksum is right, or it is of one line and so had none. */
function believed(bytes: Buffer): unknown {
  const end = bytes.indexOf(NEWLINE);
  const line = end < 0 ? bytes : bytes.subarray(0, end);
  if (end >= 0 && bytes.toString("latin1", end) !== `\n${crcOf(line)}\n`) return undefined;
  try {
    return JSON.parse(line.toString());
  } catch {
    return undefined;
  }
}

/** Writes one after the other; those asked for while one runs become one. */
export class SidecarWriter {
  readonly #path: string;
  readonly #state: () => Sidecar;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  /** @param state what to write, asked when it is written */
  constructor(path: string, state: () => Sidecar) {
    this.#path = path;
    this.#state = state;
  }

  /** Resolves when a state at least as new as now's is on disk. */
  write(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) {
      this.#running = this.#once();
      return this.#running;
    }
    const after = this.#running
      .catch(() => {})
      .then(() => {
        this.#running = this.#next;
        this.#next = undefined;
        return this.#once();
      });
    this.#next = after;
    return after;
  }

  async #once(): Promise<void> {
    try {
      await writeDurably(this.#path, formatSidecar(this.#state()));
    } finally {
      if (this.#next === undefined) this.#running = undefined;
    }
  }
}

function formatSidecar(state: Sidecar): string {
  const waiting = state.waiting.map((range) => ({
    ...range,
    epoch: epochName(range.epoch),
    first: Number(range.first),
    last: Number(range.last),
  }));
  const newestUs = Object.fromEntries(state.newestUs);
  return checkedLine(JSON.stringify({ version: VERSION, epochStart: state.epochStart, newestUs, waiting }));
}
