/**
 * What a consumer's holder leaves to the next one and is too large to stand in the document of its lease. It is written
 * in pieces under a name of its own, and then the document is made to name it, in one write with the positions:
 *
 *   c.<stream>.<consumer>                  {…, "kept": {"id": …, "pieces": 2, …}}
 *   c.<stream>.<consumer>.<id>.0 and .1    the pieces
 *
 * So a holder that was taken over, or that is killed in between, leaves pieces that nothing names: the next one removes them.
 */
import { randomBytes } from "node:crypto";
import { crcOf } from "../../../../runtime/checked-line.ts";
import type { Documents } from "./documents.ts";

/** nats-server takes up to 16 MiB here, but what it takes at once holds up its other messages. */
const PIECE_BYTES = 1_048_576;

/** Part of the document. */
export interface KeptRef {
  readonly id: string;
  readonly pieces: number;
  /** CRC-32C of them all, 8 hex digits. */
  readonly crc: string;
}

export class KeptBytes {
  readonly #documents: Documents;
  readonly #key: string;

  /** @param key of the consumer's document */
  constructor(documents: Documents, key: string) {
    this.#documents = documents;
    this.#key = key;
  }

  /** Resolves when a majority has them; nothing names them yet. */
  async write(bytes: Buffer): Promise<KeptRef> {
    const id = randomBytes(9).toString("base64url");
    let pieces = 0;
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      await this.#documents.putOnce(this.#keyOf(id, pieces++), bytes.subarray(at, at + PIECE_BYTES));
    }
    return { id, pieces, crc: crcOf(bytes) };
  }

  /** Undefined when they are not there, or not as they were written. */
  async read({ id, pieces, crc }: KeptRef): Promise<Buffer | undefined> {
    const read: Buffer[] = [];
    for (let i = 0; i < pieces; i++) {
      const piece = await this.#documents.getOnce(this.#keyOf(id, i));
      if (piece === undefined) return undefined;
      read.push(piece);
    }
    const bytes = Buffer.concat(read);
    return crcOf(bytes) === crc ? bytes : undefined;
  }

  async drop({ id }: Pick<KeptRef, "id">): Promise<void> {
    await this.#documents.drop(`${this.#key}.${id}`);
  }

  /** What earlier holders wrote and nothing names. */
  async dropOthers(named: KeptRef | undefined): Promise<void> {
    const keys = await this.#documents.keys(this.#key);
    const ids = new Set(keys.map((key) => key.slice(0, key.indexOf("."))));
    for (const id of ids) if (id !== named?.id) await this.drop({ id });
  }

  #keyOf(id: string, piece: number): string {
    return `${this.#key}.${id}.${piece}`;
  }
}
