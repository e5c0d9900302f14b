/**
 * What a delivery knows after a crash: the cut it is in the middle of, and what it has delivered.
 *
 *   cut.json       the manifest of the one cut that is under way; absent when none is
 *   delivery.json  the ledger: this delivery's id, its last finished cut, totals, the newest objects
 *
 * Both are replaced as a whole (runtime/durable.ts): one line of JSON, and the CRC-32C of it in a second.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { crc32c } from "../../runtime/crc32c.ts";
import { syncFolder, writeDurably } from "../../runtime/durable.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import { type CutManifest, manifestSchema } from "./cut-manifest.ts";

/** 2 has a checksum. 3 may tell what was unread. */
const FORMAT_VERSION = 3;
/** As many finished objects are remembered for the console. */
export const MAX_RECENT_OBJECTS = 200;

const count = z.number().int().min(0);

const ledgerSchema = z.strictObject({
  formatVersion: z.literal([1, 2, FORMAT_VERSION]),
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
    .strictObject({ streamId: z.string(), shards: z.record(z.string(), z.tuple([count, count])) })
    .optional(),
});

export type Ledger = z.infer<typeof ledgerSchema>;

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

export class CutLedger {
  ledger: Ledger;
  /** The cut under way. */
  pending: CutManifest | undefined;
  readonly #ledgerFile: string;
  readonly #cutFile: string;

  private constructor(dir: string, ledger: Ledger, pending: CutManifest | undefined) {
    this.#ledgerFile = join(dir, "delivery.json");
    this.#cutFile = join(dir, "cut.json");
    this.ledger = ledger;
    this.pending = pending;
  }

  /** @throws DeliveryStateError */
  static async open(dir: string): Promise<CutLedger> {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await syncFolder(dirname(dir));
    let ledger = await readState(join(dir, "delivery.json"), ledgerSchema);
    let pending = await readState(join(dir, "cut.json"), manifestSchema);
    if (ledger === undefined) {
      ledger = { ...emptyLedger(), id: randomBytes(4).toString("hex") };
      await writeState(join(dir, "delivery.json"), ledger);
    }
    // The crash came between "finished" and the manifest's removal: the next cut replaces the file.
    if (pending !== undefined && pending.cut <= ledger.lastCut) pending = undefined;
    return new CutLedger(dir, ledger, pending);
  }

  /** From here on the object will exist. */
  async begin(manifest: CutManifest): Promise<void> {
    await writeState(this.#cutFile, manifest);
    this.pending = manifest;
  }

  /**
   * @param changes what the finished cut adds; the object is there and the consumer is past it
   * @param onTotals called as the totals change: whoever sees the one sees the other
   */
  async finish(cut: number, changes: Partial<Ledger>, onTotals?: () => void): Promise<void> {
    await this.update({ ...changes, lastCut: cut }, onTotals);
    this.pending = undefined;
    await rm(this.#cutFile, { force: true });
  }

  async update(changes: Partial<Ledger>, onTotals?: () => void): Promise<void> {
    const next: Ledger = { ...this.ledger, ...changes, formatVersion: FORMAT_VERSION };
    await writeState(this.#ledgerFile, next);
    this.ledger = next;
    onTotals?.();
  }
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

async function readState<T extends z.ZodType>(file: string, schema: T): Promise<z.infer<T> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new DeliveryStateError(file, error);
  }
  try {
    return schema.parse(JSON.parse(checked(text)));
  } catch (error) {
    throw new DeliveryStateError(file, error);
  }
}

/** Files of earlier versions are JSON alone. */
function checked(text: string): string {
  const [json = "", checksum] = text.split("\n");
  const hasNone = checksum === undefined && /^\{"formatVersion":[12],/.test(json);
  if (!hasNone && checksum !== checksumOf(json)) throw new Error("its checksum does not match");
  return json;
}

function checksumOf(json: string): string {
  return crc32c(Buffer.from(json)).toString(16).padStart(8, "0");
}

async function writeState(file: string, state: Ledger | CutManifest): Promise<void> {
  const json = JSON.stringify(state);
  await writeDurably(file, `${json}\n${checksumOf(json)}\n`);
}
