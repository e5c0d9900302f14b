/**
 * Brings a folder of the former layout into the present one: one large LevelDB `db` with frames, tails,
 * heads and marks becomes parts of a chain. The frames keep their epochs and sequences.
 *
 * The new sidecar is written last, over the old one. A crash before leaves the old layout and the
 * beginning of a chain, which the next open throws away; a crash behind it leaves `db`, which it removes.
 */
import { mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { decodeFrame } from "../../../protocol/frame.ts";
import { crcOf } from "../../../runtime/checked-line.ts";
import { syncFolder } from "../../../runtime/durable.ts";
import { type Database, type Operation, openDatabase, writeSynced } from "../level/leveldb.ts";
import { type ChainPart, newPart, partName, sealedName } from "./chain-part.ts";
import { markPrefix, placeInKey } from "./record-keys.ts";
import { EndsFile, ForeignBufferError, type SidecarEpoch, writeSidecar } from "./sidecar.ts";

const PART_BYTES = 4 * 1_048_576;
const BATCH_BYTES = 524_288;

interface FormerSidecar {
  readonly version: number;
  readonly device: string;
  readonly epochStart: number;
  readonly floorStart: number;
  readonly epochs: readonly { readonly start: number; readonly last: string }[];
}

/** @throws ForeignBufferError when it belongs to another device, or is not as it should be */
export async function migrateFormerLayout(dir: string, device: string): Promise<void> {
  const names = await readdir(dir);
  if (!names.includes("db")) return;
  const sidecar = await readFormerSidecar(join(dir, "sidecar"));
  if (sidecar !== "newer") {
    if (names.includes("before")) refuse(dir, "was being opened by an earlier version when that ended");
    if (sidecar === undefined)
      refuse(dir, "holds the database of an earlier version without a sidecar that can be believed");
    if (sidecar.device !== device)
      throw new ForeignBufferError(dir, `belongs to the device ${sidecar.device}`);
    await rm(join(dir, "chain"), { recursive: true, force: true });
    await mkdir(join(dir, "chain"), { mode: 0o700 });
    const epochs = await moveAll(dir, sidecar);
    await syncFolder(join(dir, "chain"));
    const present = {
      device,
      serial: 1,
      epochStart: sidecar.epochStart,
      epochs,
      marks: [0, 0] as const,
      oldestUs: 0,
      writtenUs: 0,
    };
    await (await EndsFile.make(join(dir, "ends"), present)).close();
    await writeSidecar(join(dir, "sidecar"), present);
  }
  await rm(join(dir, "db"), { recursive: true });
}

function refuse(dir: string, detail: string): never {
  throw new ForeignBufferError(
    dir,
    detail,
    "start the earlier version on it once more, and end it, or move the folder away",
  );
}

/** @returns "newer" when it is of the present layout already; undefined for what cannot be believed: all would go then */
async function readFormerSidecar(file: string): Promise<FormerSidecar | "newer" | undefined> {
  const [json = "", crc] = (await readFile(file, "utf8").catch(() => "")).split("\n");
  if (crc !== crcOf(json)) return undefined;
  const raw = JSON.parse(json) as FormerSidecar;
  return raw.version === 1 ? raw : "newer";
}

async function moveAll(dir: string, sidecar: FormerSidecar): Promise<SidecarEpoch[]> {
  let database: Database;
  try {
    database = await openDatabase(join(dir, "db"), false);
  } catch (error) {
    return refuse(
      dir,
      `holds a database of an earlier version that does not open: ${(error as Error).message}`,
    );
  }
  try {
    const epochs = new Map<number, SidecarEpoch>();
    for await (const [key, tail] of database.iterator({ gte: "t/", lt: "t0" })) {
      const start = Number.parseInt(key.slice(2), 16);
      if (start < sidecar.floorStart) continue;
      const [epoch, last] = JSON.parse(tail.toString()) as [string, string];
      const head = (await database.get(`h/${key.slice(2)}`)) as Buffer | undefined;
      const [removedTo] = head === undefined ? ["0"] : (JSON.parse(head.toString()) as [string]);
      epochs.set(start, {
        start,
        epoch: BigInt(`0x${epoch}`),
        last: BigInt(last),
        removedTo: BigInt(removedTo),
        waitingRecords: 0,
        gone: [],
      });
    }
    for (const { start, last } of sidecar.epochs) {
      if ((epochs.get(start)?.last ?? -1n) < BigInt(last)) refuse(dir, `lacks frames of epoch ${start}`);
    }
    const parts = new PartWriter(join(dir, "chain"));
    for await (const [key, bytes] of database.iterator({ gte: "f/", lt: "f0" })) {
      const place = placeInKey(key);
      const epoch = place && epochs.get(place.start);
      if (place === undefined || epoch === undefined || place.sequence <= epoch.removedTo) continue;
      const records = await parts.add(key, bytes);
      epochs.set(place.start, { ...epoch, waitingRecords: epoch.waitingRecords + records });
    }
    await parts.seal();
    for await (const [key, value] of database.iterator({ gte: markPrefix, lt: "m0" })) {
      await parts.addMark(key, value);
    }
    await parts.close();
    return [...epochs.values()];
  } finally {
    await database.close();
  }
}

class PartWriter {
  readonly #dir: string;
  #number = 0;
  #part: ChainPart | undefined;
  #database: Database | undefined;
  #waiting: Operation[] = [];
  #waitingBytes = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** @returns its records; 0 for one that is damaged, whose place stays empty and is told of later */
  async add(key: string, bytes: Buffer): Promise<number> {
    let frame: ReturnType<typeof decodeFrame>;
    try {
      frame = decodeFrame(bytes);
    } catch {
      return 0;
    }
    if (this.#part !== undefined && (this.#part.epoch !== frame.epoch || this.#part.bytes >= PART_BYTES)) {
      await this.seal();
    }
    this.#part ??= newPart(++this.#number, frame.epochStart, frame.epoch);
    const part = this.#part;
    if (part.first === 0n) {
      part.first = frame.sequence;
      part.oldestUs = frame.storedUs;
    }
    part.last = frame.sequence;
    part.newestUs = frame.storedUs;
    part.records += frame.recordCount;
    part.bytes += bytes.length;
    await this.#put(part, key, bytes);
    return frame.recordCount;
  }

  /** Into a part without a name, as marks that are in no other place are. */
  async addMark(key: string, value: Buffer): Promise<void> {
    this.#part ??= newPart(++this.#number, 0, 0n);
    await this.#put(this.#part, key, value);
  }

  async #put(part: ChainPart, key: string, value: Buffer): Promise<void> {
    this.#database ??= await openDatabase(join(this.#dir, partName(part.number)), true, 4 * PART_BYTES);
    this.#waiting.push({ type: "put", key, value });
    this.#waitingBytes += value.length;
    if (this.#waitingBytes >= BATCH_BYTES) await this.#flush();
  }

  async #flush(): Promise<void> {
    if (this.#waiting.length > 0) await writeSynced(this.#database!, this.#waiting.splice(0));
    this.#waitingBytes = 0;
  }

  /** What comes next goes into another part. */
  async seal(): Promise<void> {
    const part = this.#part;
    if (part === undefined) return;
    await this.close();
    await rename(join(this.#dir, part.name), join(this.#dir, sealedName(part)));
  }

  async close(): Promise<void> {
    if (this.#part === undefined) return;
    await this.#flush();
    await this.#database?.close();
    await syncFolder(join(this.#dir, this.#part.name));
    this.#database = undefined;
    this.#part = undefined;
  }
}
