/**
 * Closes an MQTT connection whose client announces a packet larger than it may send. The broker
 * library collects a packet of up to 256 MiB before anybody is asked; this looks at the fixed
 * headers as the bytes pass (MQTT 3.1.1 §2.2) and stops such a client at its header.
 */
import type { Socket } from "node:net";

/**
 * The first packet is CONNECT (MQTT 3.1.1 §3.1), and who sends it has not proven anything yet: a few names, a
 * password and a will do not need more, and thousands who never end theirs do not fill the memory.
 */
export const MAX_CONNECT_BYTES = 65_536;
/**
 * Of packets that are no PUBLISH. A SUBSCRIBE of 12 MiB names millions of topics, and the library looks at
 * them for seconds, in which nobody else is heard.
 */
export const MAX_OTHER_BYTES = 16_384;
/** MQTT 3.1.1 §2.2.1: the upper half of a packet's first byte. */
const PUBLISH = 3;

/** Follows a byte stream from packet to packet without keeping any of it. */
export class PacketLengths {
  readonly #maxBytes: number;
  /** What the packet in hand may have. */
  #limitBytes = 0;
  #isFirst = true;
  /** Bytes of the current packet's body that have yet to pass. */
  #bodyLeft = 0;
  #inLength = false;
  #length = 0;
  #shift = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What has passed ends where a packet ends. */
  get isBetween(): boolean {
    return this.#bodyLeft === 0 && !this.#inLength;
  }

  /** Of the packet's body that is in hand; 0 between packets, and in their heads. */
  get packetBytes(): number {
    return this.#bodyLeft === 0 ? 0 : this.#length;
  }

  /** Of which so many have yet to pass. */
  get bodyLeft(): number {
    return this.#bodyLeft;
  }

  /** False as soon as a packet announces more than its limit, or a length of more than four bytes. */
  accept(chunk: Uint8Array): boolean {
    return this.pass(chunk, Number.POSITIVE_INFINITY) >= 0;
  }

  /**
   * The same, up to where the `maxPackets`th packet ends.
   * @returns how many bytes have passed; -1 where `accept` is false
   */
  pass(chunk: Uint8Array, maxPackets: number): number {
    let at = 0;
    let packets = 0;
    while (at < chunk.length) {
      if (this.isBetween && packets++ === maxPackets) return at;
      if (this.#bodyLeft > 0) {
        const passed = Math.min(this.#bodyLeft, chunk.length - at);
        this.#bodyLeft -= passed;
        at += passed;
      } else if (!this.#inLength) {
        // The first byte holds type and flags; the remaining length follows.
        this.#limitBytes = this.#limitOf(chunk[at]! >> 4);
        this.#isFirst = false;
        this.#inLength = true;
        this.#length = 0;
        this.#shift = 0;
        at++;
      } else if (!this.#lengthByte(chunk[at++]!)) {
        return -1;
      }
    }
    return at;
  }

  #limitOf(type: number): number {
    if (this.#isFirst) return Math.min(this.#maxBytes, MAX_CONNECT_BYTES);
    return type === PUBLISH ? this.#maxBytes : Math.min(this.#maxBytes, MAX_OTHER_BYTES);
  }

  /** MQTT 3.1.1 §2.2.3: seven bits a byte, least significant first, at most four bytes. */
  #lengthByte(byte: number): boolean {
    this.#length += (byte & 0x7f) * 2 ** this.#shift;
    this.#shift += 7;
    if (this.#length > this.#limitBytes || (byte >= 0x80 && this.#shift === 28)) return false;
    if (byte < 0x80) {
      this.#inLength = false;
      this.#bodyLeft = this.#length;
    }
    return true;
  }
}

/** Watches `socket`, which a broker reads, and calls `refuse` once when a packet is too large. */
export function limitPackets(socket: Socket, maxBytes: number, refuse: () => void): void {
  const lengths = new PacketLengths(maxBytes);
  // A `data` listener beside the broker's `readable` one sees each chunk that the broker reads.
  const look = (chunk: Buffer): void => {
    if (lengths.accept(chunk)) return;
    socket.off("data", look);
    refuse();
    socket.destroy();
  };
  socket.on("data", look);
}
