/**
 * What a client last published, so that what it sends again after a broken connection is stored
 * once. DUP says nothing (MQTT 3.1.1 §3.3.1.1: it is the sender's own account, and clients forget
 * it), so a publish is known by its packet id and the hash of topic and payload.
 *
 * A client sends again, in their order, all publishes that it saw no PUBACK for ([MQTT-4.4.0-1],
 * [MQTT-4.6.0-1]), before anything new. As PUBACKs go out in the order of storing, those that were
 * stored are the newest entries here, up to the end. Only such a run of leading publishes is
 * recognised; the first that does not continue it ends the search for this connection.
 *
 * Some clients also send again on the same connection, when a PUBACK takes its time, which the standard
 * does not know. They do set DUP ([MQTT-3.3.1-1]): what bears it is looked up among all that came on its
 * connection. Not among what came earlier: a number and a reading come again, and the first of them may be lost.
 */
import { createHash } from "node:crypto";
import { numbersAnew } from "../../../protocol/packet-numbering.ts";

export const MEMORY_ENTRIES = 64;
const HASH_BYTES = 6;
const ENTRY_BYTES = 2 + HASH_BYTES;

/** Packet id and hash, as eight Latin-1 characters: small, and quick to compare. */
export type PublishKey = string;

export function publishKey(packetId: number, topic: string, payload: Uint8Array): PublishKey {
  const key = Buffer.allocUnsafe(ENTRY_BYTES);
  key.writeUInt16BE(packetId);
  createHash("sha256").update(topic).update("\0").update(payload).digest().copy(key, 2, 0, HASH_BYTES);
  return key.toString("latin1");
}

function packetIdOf(key: PublishKey): number {
  return key.charCodeAt(0) * 256 + key.charCodeAt(1);
}

interface Entry {
  readonly key: PublishKey;
  /** Settles when it is stored; undefined once it is. */
  pending: Promise<void> | undefined;
  /** The connection that it came on; undefined for one before the agent's start. */
  readonly connection: LeadingPublishes | undefined;
}

export class PublishMemory {
  #entries: Entry[] = [];

  /** @param mark as made by `encodeWith`; undefined for a new client */
  constructor(mark?: Uint8Array) {
    const bytes = Buffer.from(mark ?? []);
    for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
      this.#entries.push({
        key: bytes.toString("latin1", at, at + ENTRY_BYTES),
        pending: undefined,
        connection: undefined,
      });
    }
  }

  get hasPending(): boolean {
    return this.#entries.some((entry) => entry.pending !== undefined);
  }

  /** Remembers a publish that is about to be stored. When that fails it is forgotten again. */
  add(key: PublishKey, stored: Promise<void>, connection: LeadingPublishes): void {
    const entry: Entry = { key, pending: stored, connection };
    this.#entries.push(entry);
    if (this.#entries.length > MEMORY_ENTRIES) this.#entries.shift();
    stored.then(
      () => {
        entry.pending = undefined;
      },
      () => {
        this.#entries = this.#entries.filter((other) => other !== entry);
      },
    );
  }

  /** Of a publish that bears DUP: when it is stored. @returns undefined when it did not come on this connection */
  sentBefore(key: PublishKey, connection: LeadingPublishes): Promise<void> | undefined {
    const entry = this.#entries.findLast((entry) => entry.key === key && entry.connection === connection);
    return entry && (entry.pending ?? Promise.resolve());
  }

  /** The mark that is stored together with one more publish. */
  encodeWith(key: PublishKey): Buffer {
    const keys = [...this.#entries.map((entry) => entry.key), key].slice(-MEMORY_ENTRIES);
    return Buffer.from(keys.join(""), "latin1");
  }

  clear(): void {
    this.#entries = [];
  }

  /** For one new connection. */
  leading(): LeadingPublishes {
    return new LeadingPublishes(this.#entries);
  }
}

/** Compares the leading publishes of one connection with what was remembered when it began. */
export class LeadingPublishes {
  #remembered: readonly Entry[];
  #begun = false;

  constructor(entries: readonly Entry[]) {
    this.#remembered = [...entries];
  }

  /**
   * @param dup what the client says of it
   * @returns when the same publish of an earlier connection is stored; undefined when this one is new.
   */
  match(key: PublishKey, dup = false): Promise<void> | undefined {
    if (!this.#begun && numbersAnew(packetIdOf(key), dup, (packetId) => this.#remembers(packetId))) {
      this.#remembered = [];
    }
    if (this.#remembered.length === 0) return undefined;
    // The first may be any of them, the newest where it could be several; what follows must follow on.
    const at = this.#begun
      ? Number(this.#remembered[0]!.key === key) - 1
      : this.#remembered.findLastIndex((entry) => entry.key === key);
    this.#begun = true;
    if (at < 0) {
      this.#remembered = [];
      return undefined;
    }
    const { pending } = this.#remembered[at]!;
    this.#remembered = this.#remembered.slice(at + 1);
    return pending ?? Promise.resolve();
  }

  #remembers(packetId: number): boolean {
    return this.#remembered.some((entry) => packetIdOf(entry.key) === packetId);
  }
}
