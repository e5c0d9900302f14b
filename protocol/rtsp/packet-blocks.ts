/**
 * What a packet holds in memory beside itself. It comes as a view of the chunk that it came in, and holds all of
 * that for as long as it is kept: 64 KiB for 28 bytes, if its sender wants it so.
 */

const BLOCK_BYTES = 32_768;
/** A larger one has memory of its own, so that a block's unused end is small against what is in it. */
const MAX_SHARED_BYTES = BLOCK_BYTES / 4;
const NOTHING = Buffer.alloc(0);

/**
 * Copies back to back in blocks.
 *
 *   chunk from the network [ kept │ not kept … ] ─copy→ [ kept │ kept │ kept … ] block
 *
 * Whoever keeps these copies and lets go of them in about their order holds what they are, and one block.
 */
export class PacketBlocks {
  #block: Buffer = NOTHING;
  #usedBytes = 0;

  /** Room for so many bytes, with anything in it. */
  take(bytes: number): Buffer {
    if (bytes > MAX_SHARED_BYTES) return Buffer.allocUnsafeSlow(bytes);
    if (this.#usedBytes + bytes > this.#block.length) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      this.#usedBytes = 0;
    }
    const from = this.#usedBytes;
    this.#usedBytes += bytes;
    return this.#block.subarray(from, this.#usedBytes);
  }

  copy(packet: Buffer): Buffer {
    const room = this.take(packet.length);
    packet.copy(room);
    return room;
  }
}

/** Reports and the heads of frames are a small part of what an honest sender sends. */
const ALLOWED_PART = 1 / 8;
const ALLOWED_BYTES = 1_048_576;

/**
 * The packets of one sender. Views, which cost nothing, while nearly all that comes is packets; copies once more
 * than 1 MiB and an eighth of the rest was something else.
 */
export class SparingPackets {
  readonly #blocks = new PacketBlocks();
  #otherBytes = 0;

  /** So much came, whatever it is. */
  came(bytes: number): void {
    this.#otherBytes += bytes;
  }

  /** One packet of it, for somebody who may keep it. */
  take(packet: Buffer): Buffer {
    const otherBytes = this.#otherBytes - packet.length * (1 + ALLOWED_PART);
    this.#otherBytes = otherBytes < 0 ? 0 : otherBytes;
    return otherBytes > ALLOWED_BYTES ? this.#blocks.copy(packet) : packet;
  }
}
