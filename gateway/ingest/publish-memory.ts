/**
 * The memory that all MQTT connections take together, and who of them is read on meanwhile: a disk that hangs takes
 * nothing, and each of thousands of connections has a packet to hand in.
 *
 *   beginning of a large packet ─room→ promised ─whole→ waiting ─stored→ free
 *                               └none→ in line: its connection is not read on
 *   all of that beyond the limit → nobody is read on but for what was promised, until something is stored
 *
 * A promise is for the whole packet, so that what has begun comes to its end and nobody waits for one that waits
 * himself. First come, first served. Small packets need no promise: they come while large ones stand in line.
 *
 * Who takes long over a packet, while the disk does not and others wait, is ended: it holds them up, and sends again
 * what was not acknowledged.
 */
import { heldMemoryBytes } from "../../runtime/machine-memory.ts";

/** Of all connections; a read or a packet more may come. */
const MAX_BYTES = heldMemoryBytes();
/** So much of a packet is kept by each connection anyway. */
const SMALL_BYTES = 32 * 1_024;
/** How often is looked who holds up others; whoever does so the second time is ended. */
const ROUND_MS = 5_000;
const LATE_ROUNDS = 2;
/** Connections that are read on in one turn of the event loop. They come with as many reads. */
const WOKEN_AT_ONCE = 64;

/** A connection. The numbers are kept here, and are the memory's own. */
export interface Reader {
  promisedBytes: number;
  /** In line: what has come, and what it will be. */
  begunBytes: number;
  wantedBytes: number;
  /** In which it got its promise. */
  round: number;
  readonly isPaused: boolean;
  pause(): void;
  /** Reads on if it may. */
  readOn(): void;
  /** Whoever is not heard is not to be taken for gone. */
  keepAlive(): void;
  end(): void;
}

export interface PublishMemoryOptions {
  /** 256 MiB, or what a small machine has for it, unless given; a third of it must hold a packet. */
  readonly maxBytes?: number;
  readonly roundMs?: number;
  /** Some have to wait from now on where nobody had to. */
  readonly onHeld?: () => void;
}

export class PublishMemory {
  /** Of publishes that are taken and not answered. Counted by the lane. */
  waitingBytes = 0;
  readonly #maxBytes: number;
  readonly #roundMs: number;
  readonly #onHeld: () => void;
  #promisedBytes = 0;
  #begunBytes = 0;
  readonly #readers = new Set<Reader>();
  /** The oldest first, as those that wait. */
  readonly #promises = new Set<Reader>();
  readonly #line = new Set<Reader>();
  readonly #stopped = new Set<Reader>();
  #isFull = false;
  #fullRounds = 0;
  #round = 0;
  #timer: NodeJS.Timeout | undefined;
  #isWaking = false;

  constructor({ maxBytes = MAX_BYTES, roundMs = ROUND_MS, onHeld = () => {} }: PublishMemoryOptions = {}) {
    this.#maxBytes = maxBytes;
    this.#roundMs = roundMs;
    this.#onHeld = onHeld;
  }

  /** Of packets that are not whole yet, as far as memory is promised or taken. */
  get comingBytes(): number {
    return this.#promisedBytes + this.#begunBytes;
  }

  add(reader: Reader): void {
    this.#readers.add(reader);
    if (!this.#isFull) return;
    reader.pause();
    this.#stop(reader);
  }

  /** Its connection is gone. */
  forget(reader: Reader): void {
    this.#takeBack(reader);
    this.#readers.delete(reader);
    this.#stopped.delete(reader);
    this.roomCame();
  }

  /**
   * Asked behind each read, and when it could go on. Where it may not, its `readOn` is called once it may.
   * @param wantedBytes that its packet will have which is not whole yet; 0 where there is none
   * @param haveBytes that have come of it
   */
  mayReadOn(reader: Reader, wantedBytes: number, haveBytes: number): boolean {
    if (wantedBytes > SMALL_BYTES) {
      if (reader.promisedBytes !== wantedBytes && !this.#ask(reader, wantedBytes, haveBytes)) return false;
    } else if (this.#isFull || this.waitingBytes + this.comingBytes > this.#maxBytes) {
      this.#stopAll();
      this.#stop(reader);
      return false;
    }
    if (this.#stopped.size > 0) this.#stopped.delete(reader);
    return true;
  }

  /** The packet that memory was promised to has come to its end. Others may have as much promised. */
  whole(reader: Reader): void {
    this.#takeBack(reader);
    this.roomCame();
  }

  #takeBack(reader: Reader): void {
    if (this.#promises.delete(reader)) this.#promisedBytes -= reader.promisedBytes;
    if (this.#line.delete(reader)) this.#begunBytes -= reader.begunBytes;
    reader.promisedBytes = 0;
    reader.begunBytes = 0;
    reader.wantedBytes = 0;
  }

  /** Less waits, or somebody left: those who wait are read on, in the turns to come. */
  roomCame(): void {
    if (this.#isWaking || !this.#isHolding) return;
    this.#isWaking = true;
    setImmediate(() => this.#wake());
  }

  get #isHolding(): boolean {
    return this.#line.size > 0 || this.#stopped.size > 0;
  }

  #ask(reader: Reader, wantedBytes: number, haveBytes: number): boolean {
    if (this.#line.has(reader)) return false;
    this.#takeBack(reader);
    if (this.#line.size === 0 && this.#fits(wantedBytes)) {
      this.#promise(reader, wantedBytes);
      return true;
    }
    this.#hold();
    reader.begunBytes = haveBytes;
    reader.wantedBytes = wantedBytes;
    this.#begunBytes += haveBytes;
    this.#line.add(reader);
    if (this.waitingBytes + this.comingBytes > this.#maxBytes) this.#stopAll();
    return false;
  }

  /** Half of all is promised at most, and a quarter is left for beginnings and what is small. */
  #fits(bytes: number): boolean {
    const promisedBytes = this.#promisedBytes + bytes;
    return (
      promisedBytes <= this.#maxBytes / 2 && promisedBytes + this.waitingBytes <= (3 * this.#maxBytes) / 4
    );
  }

  #promise(reader: Reader, bytes: number): void {
    reader.promisedBytes = bytes;
    reader.round = this.#round;
    this.#promisedBytes += bytes;
    this.#promises.add(reader);
  }

  /** All at once: each that is read once more may bring a quarter of a megabyte. */
  #stopAll(): void {
    if (this.#isFull) return;
    this.#isFull = true;
    this.#fullRounds = 0;
    for (const reader of this.#readers) {
      if (reader.promisedBytes > 0 || this.#line.has(reader)) continue;
      reader.pause();
      this.#stop(reader);
    }
  }

  #stop(reader: Reader): void {
    this.#hold();
    this.#stopped.add(reader);
  }

  #hold(): void {
    if (!this.#isHolding) this.#onHeld();
    this.#timer ??= setInterval(() => this.#nextRound(), this.#roundMs).unref();
  }

  #wake(): void {
    this.#isWaking = false;
    for (const reader of this.#line) {
      const { wantedBytes } = reader;
      if (!this.#fits(wantedBytes)) break;
      this.#takeBack(reader);
      this.#promise(reader, wantedBytes);
      reader.readOn();
    }
    // Not as soon as there is room for one: to stop all of them costs some milliseconds.
    if (this.waitingBytes + this.comingBytes <= (7 * this.#maxBytes) / 8) this.#isFull = false;
    let woken = 0;
    for (const reader of this.#stopped) {
      if (this.#isFull || woken++ === WOKEN_AT_ONCE) break;
      this.#stopped.delete(reader);
      reader.readOn();
    }
    // Of those who were read on, nobody may have had anything to say.
    if (!this.#isFull && this.#stopped.size > 0) this.roomCame();
    if (!this.#isHolding) this.#rest();
  }

  #rest(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #nextRound(): void {
    for (const reader of this.#readers) if (reader.isPaused) reader.keepAlive();
    // Then it is the disk that all wait for.
    if (this.waitingBytes <= this.#maxBytes / 4) this.#endLate();
    if (this.#isHolding) this.roomCame();
    else this.#rest();
  }

  #endLate(): void {
    this.#round++;
    for (const reader of this.#promises) {
      if (this.#round - reader.round >= LATE_ROUNDS && !reader.isPaused) this.#end(reader);
    }
    if (!this.#isFull || ++this.#fullRounds < LATE_ROUNDS) return;
    // Beginnings alone keep all others out.
    for (const reader of this.#line) {
      if (this.#begunBytes <= this.#maxBytes / 8) break;
      this.#end(reader);
    }
  }

  #end(reader: Reader): void {
    this.#takeBack(reader);
    reader.end();
  }
}
