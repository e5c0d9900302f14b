/**
 * What a delivery knows after a crash: the cut it is in the middle of, and what it has delivered.
 *
 *   cut.json       the manifest of the one cut that is under way; absent when none is
 *   delivery.json  the ledger: this delivery's id, its last finished cut, totals, the newest objects
 *
 * Both are replaced as a whole (runtime/durable.ts): one line of JSON, and the CRC-32C of it in a second.
 *
 * Where gateways share the store both stand in the consumer's document instead, beside its checkpoints: whoever gets
 * the lease gets them, and who has lost it writes none of them any more.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { checkedLine, crcOf } from "../../runtime/checked-line.ts";
import { foreignFolder } from "../../runtime/data-folder.ts";
import { syncFolder, writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import type { Consumer, Handover, Offset, ShardId } from "../streams/streams.ts";
import { type CutManifest, MANIFEST_VERSION, manifestSchema } from "./cut-manifest.ts";

/** 2 has a checksum. 3 may tell what was unread, 4 up to where trimmed records are counted. */
const FORMAT_VERSION = 4;
/** As many finished objects are remembered for the console. */
export const MAX_RECENT_OBJECTS = 200;
/** As many where the ledger is written with each of the lease's heartbeats: what the console shows. */
const MAX_HANDED_OBJECTS = 20;

const count = z.number().int().min(0);

const ledgerSchema = z.strictObject({
  formatVersion: z.literal([1, 2, 3, FORMAT_VERSION]),
  /** Random; part of every object's name, so that a lost data folder never overwrites old objects. */
  id: z.string().regex(/^[0-9a-f]{8}$/),
  lastCut: count,
  objects: count,
  records: count,
  failedRecords: count,
  trimmedRecords: count,
  recent: z.array(z.strictObject({ name: z.string(), records: count, bytes: count, deliveredMs: count })),
  /** What stood unread when the delivery last failed (`lookForUnread`); none while it works. */
  unread: z
    .strictObject({
      streamId: z.string(),
      shards: z.record(z.string(), z.tuple([count, count, count.optional()])),
    })
    .optional(),
  /** Up to where trimmed records are in the totals; the consumer's checkpoint follows. */
  counted: z.strictObject({ streamId: z.string(), positions: z.record(z.string(), count) }).optional(),
});

export type Ledger = z.infer<typeof ledgerSchema>;

/** As it is handed over. */
const noteSchema = z.strictObject({
  formatVersion: z.literal(1),
  ledger: ledgerSchema,
  pending: manifestSchema.optional(),
});

/** Nothing is delivered until an operator has decided; guessing could lose or double records. */
export class DeliveryStateError extends HeadwaterError {
  constructor(file: string, cause: unknown) {
    super("DELIVERY_STATE_DAMAGED", {
      message: `${file} cannot be used`,
      hint: "restore it from a backup, or move it away: objects then get a new id, and the cut under way may be delivered twice",
      cause,
    });
  }
}

/** Nothing is delivered until the version that wrote it runs again. */
export class DeliveryStateNewerError extends HeadwaterError {
  constructor(file: string, version: number, newest: number) {
    super("DELIVERY_STATE_NEWER", {
      message: `${file} has format version ${version}, this program reads up to ${newest}`,
      hint: "start the version of Headwater that wrote it; the file was not touched",
    });
  }
}

export class CutLedger {
  ledger: Ledger;
  /** The cut under way. */
  pending: CutManifest | undefined;
  readonly #ledgerFile: string;
  readonly #cutFile: string;
  /** Where both are kept from the moment when a lease on a shared store was got. */
  #handover: Handover | undefined;

  private constructor(dir: string, ledger: Ledger, pending: CutManifest | undefined) {
    this.#ledgerFile = join(dir, "delivery.json");
    this.#cutFile = join(dir, "cut.json");
    this.ledger = ledger;
    this.pending = pending;
  }

  /** @throws DeliveryStateError, DeliveryStateNewerError; DataFolderError where a file is another user's */
  static async open(dir: string): Promise<CutLedger> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await syncFolder(dirname(dir));
    let ledger = await readState(join(dir, "delivery.json"), ledgerSchema, FORMAT_VERSION);
    let pending = await readState(join(dir, "cut.json"), manifestSchema, MANIFEST_VERSION);
    if (ledger === undefined) {
      ledger = { ...emptyLedger(), id: newId() };
      await writeState(join(dir, "delivery.json"), ledger);
    }
    // The crash came between "finished" and the manifest's removal: the next cut replaces the file.
    if (pending !== undefined && pending.cut <= ledger.lastCut) pending = undefined;
    return new CutLedger(dir, ledger, pending);
  }

  /** Whether it is in the document of this consumer. */
  isKeptWith(consumer: Consumer): boolean {
    return this.#handover !== undefined && this.#handover === consumer.handover;
  }

  /**
   * Takes over what the last holder of the lease left. Where nobody left anything, it is what this gateway knows: what
   * an earlier version kept in its files, or of a stream that was made anew meanwhile.
   * @returns true when another gateway has delivered since this one did
   * @throws DeliveryStateError, LeaseLostError
   */
  async takeOver(handover: Handover): Promise<boolean> {
    const { note } = handover;
    // Of a stream that was made anew. Another gateway may have delivered since this one did, and given cuts behind its last
    // one their names: under these an object would be taken for one that is there.
    const isAnew = note === undefined && this.#handover !== undefined;
    const ledger = isAnew ? { ...this.ledger, id: newId() } : this.ledger;
    const known = this.#note(ledger, this.pending);
    const left = note === undefined ? known : readNote(note);
    if (note === undefined) await handover.keep(known);
    this.#handover = handover;
    this.ledger = left.ledger;
    this.pending = left.pending;
    // An older gateway must not find them: it would give their numbers to other cuts.
    for (const file of [this.#cutFile, this.#ledgerFile]) await rm(file, { force: true });
    return !isDeepStrictEqual(JSON.parse(JSON.stringify(known)), left);
  }

  /** From here on the object will exist. */
  async begin(manifest: CutManifest): Promise<void> {
    if (this.#handover !== undefined) await this.#handover.keep(this.#note(this.ledger, manifest));
    else await writeState(this.#cutFile, manifest);
    this.pending = manifest;
  }

  /**
   * The objects are there: the cut is counted, and no longer under way.
   * @param onTotals called as the totals change: whoever sees the one sees the other
   * @param ends up to where the consumer moves in the same write, where both are kept together; else it is past the cut
   */
  async finish(
    manifest: CutManifest,
    deliveredMs: number,
    onTotals: () => void,
    ends?: ReadonlyMap<ShardId, Offset>,
  ): Promise<void> {
    await this.#write(withCut(this.ledger, manifest, deliveredMs), undefined, onTotals, ends);
    if (this.#handover === undefined) await rm(this.#cutFile, { force: true });
  }

  async update(changes: Partial<Ledger>, onTotals?: () => void): Promise<void> {
    await this.#write(changes, this.pending, onTotals);
  }

  async #write(
    changes: Partial<Ledger>,
    pending: CutManifest | undefined,
    onTotals?: () => void,
    ends?: ReadonlyMap<ShardId, Offset>,
  ): Promise<void> {
    const next: Ledger = { ...this.ledger, ...changes, formatVersion: FORMAT_VERSION };
    if (this.#handover !== undefined) {
      next.recent = next.recent.slice(0, MAX_HANDED_OBJECTS);
      await this.#handover.keep(this.#note(next, pending), ends);
    } else await writeState(this.#ledgerFile, next);
    this.ledger = next;
    this.pending = pending;
    onTotals?.();
  }

  #note(ledger: Ledger, pending: CutManifest | undefined): z.infer<typeof noteSchema> {
    return { formatVersion: 1, ledger, ...(pending !== undefined && { pending }) };
  }
}

function readNote(note: unknown): z.infer<typeof noteSchema> {
  const { success, data, error } = noteSchema.safeParse(note);
  if (!success) throw new DeliveryStateError("what another gateway left of this delivery", error);
  return data;
}

function withCut(ledger: Ledger, manifest: CutManifest, deliveredMs: number): Partial<Ledger> {
  const { cut, object: name, records, failedRecords, bytes, trimmedRecords = 0 } = manifest;
  const changes: Partial<Ledger> = {
    lastCut: cut,
    failedRecords: ledger.failedRecords + failedRecords,
    trimmedRecords: ledger.trimmedRecords + trimmedRecords,
  };
  if (records === 0) return changes;
  const recent = [{ name, records, bytes, deliveredMs }, ...ledger.recent].slice(0, MAX_RECENT_OBJECTS);
  return { ...changes, objects: ledger.objects + 1, records: ledger.records + records, recent };
}

function newId(): string {
  return randomBytes(4).toString("hex");
}

function emptyLedger(): Omit<Ledger, "id"> {
  return {
    formatVersion: FORMAT_VERSION,
    lastCut: 0,
    objects: 0,
    records: 0,
    failedRecords: 0,
    trimmedRecords: 0,
    recent: [],
  };
}

async function readState<T extends z.ZodType>(
  file: string,
  schema: T,
  newest: number,
): Promise<z.infer<T> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    // Another user's is whole: moved away, it would have records delivered twice.
    throw foreignFolder(error) ?? new DeliveryStateError(file, error);
  }
  try {
    const json = checked(text);
    const version = Number(/^\{"formatVersion":(\d+)/.exec(json)?.[1]);
    if (version > newest) throw new DeliveryStateNewerError(file, version, newest);
    return schema.parse(JSON.parse(json));
  } catch (error) {
    throw error instanceof DeliveryStateNewerError ? error : new DeliveryStateError(file, error);
  }
}

/** Files of earlier versions are JSON alone. */
function checked(text: string): string {
  const [json = "", checksum] = text.split("\n");
  const hasNone = checksum === undefined && /^\{"formatVersion":[12],/.test(json);
  if (!hasNone && checksum !== crcOf(json)) throw new Error("its checksum does not match");
  return json;
}

async function writeState(file: string, state: Ledger | CutManifest): Promise<void> {
  await writeDurably(file, checkedLine(JSON.stringify(state)));
}
