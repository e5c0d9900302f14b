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
import { inHex } from "../../../../../runtime/checked-line.ts";
import { crc32c } from "../../../../../runtime/crc32c.ts";
import { LogFullError } from "../../../streams.ts";
import type { Documents } from "../cluster/documents.ts";

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

  /** Resolves when a majority has them; nothing names them yet. @param parts one behind the other @throws LogFullError: none is left */
  async write(parts: readonly Uint8Array[]): Promise<KeptRef> {
    const id = randomBytes(9).toString("base64url");
    let pieces = 0;
    let crc = 0;
    try {
      for (const piece of inPieces(parts)) {
        crc = crc32c(piece, 0, piece.length, crc);
        await this.#documents.putOnce(this.#keyOf(id, pieces++), piece);
      }
    } catch (error) {
      // Those that had room would take the last of it from everybody else. What is not removed now the next holder removes.
      if (error instanceof LogFullError) await this.drop({ id }).catch(() => undefined);
      throw error;
    }
    return { id, pieces, crc: inHex(crc) };
  }

  /**
   * What is named; what earlier holders wrote and nothing names is removed.
   * @param stillHeld rejects unless the lease was held after the call
   * @returns undefined when they are not there, or not as they were written
   */
  async open(named: KeptRef | undefined, stillHeld: () => Promise<void>): Promise<Buffer | undefined> {
    const keys = await this.#documents.keys(this.#key);
    const ids = new Set(keys.map((key) => key.slice(0, key.indexOf("."))));
    if (named !== undefined) ids.delete(named.id);
    // Whoever took over while this one was paused may have written some of them.
    if (ids.size > 0) await stillHeld();
    for (const id of ids) await this.drop({ id });
    if (named === undefined) return undefined;
    const bytes = await this.#read(named);
    if (bytes !== undefined) return bytes;
    // He would have removed them; and who answers a write does not lag behind his own log.
    await stillHeld();
    return this.#read(named);
  }

  async #read({ id, pieces, crc }: KeptRef): Promise<Buffer | undefined> {
    const read: Buffer[] = [];
    let found = 0;
    for (let i = 0; i < pieces; i++) {
      const piece = await this.#documents.getOnce(this.#keyOf(id, i));
      if (piece === undefined) return undefined;
      found = crc32c(piece, 0, piece.length, found);
      read.push(piece);
    }
    return inHex(found) === crc ? Buffer.concat(read) : undefined;
  }

  async drop({ id }: Pick<KeptRef, "id">): Promise<void> {
    await this.#documents.drop(`${this.#key}.${id}`);
  }

  #keyOf(id: string, piece: number): string {
    return `${this.#key}.${id}.${piece}`;
  }
}

/** All of them at once may be 100 MB, and the event loop is everybody's. */
function* inPieces(parts: readonly Uint8Array[]): Generator<Buffer> {
  let piece: Uint8Array[] = [];
  let bytes = 0;
  for (const part of parts) {
    for (let at = 0; at < part.length; ) {
      const some = part.subarray(at, at + PIECE_BYTES - bytes);
      piece.push(some);
      bytes += some.length;
      at += some.length;
      if (bytes < PIECE_BYTES) continue;
      yield Buffer.concat(piece, bytes);
      piece = [];
      bytes = 0;
    }
  }
  if (bytes > 0) yield Buffer.concat(piece, bytes);
}
