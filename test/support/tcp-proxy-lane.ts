/** One direction of one connection of a TcpProxy: takes bytes, holds them as long as the network says, hands them on. */
import type { Socket } from "node:net";

/** up: from the client to the target. */
export type Direction = "up" | "down";

export interface Quality {
  /** Each byte arrives so much later; throughput does not suffer. */
  readonly delayMs?: number;
  /** Up to so much is added to the delay, at random. */
  readonly jitterMs?: number;
  /** For each direction of each connection. */
  readonly bytesPerSecond?: number;
}

/** What all connections share. */
export interface Network {
  quality: Quality;
  stalled: ReadonlySet<Direction>;
  bytes: Record<Direction, number>;
  cutAt: { direction: Direction; left: number; onCut: () => void } | undefined;
}

/** What may wait within the proxy in one direction, beside the buffers of the kernel. */
const MAX_WAITING_BYTES = 262_144;
/** A throttled direction sends so often. */
const THROTTLE_STEP_MS = 20;
/** The receiver reads the last bytes first: an RST right behind them looks like a FIN to libuv (uv__stream_io). */
const RESET_AFTER_MS = 10;

export interface LaneOptions {
  readonly from: Socket;
  readonly to: Socket;
  readonly direction: Direction;
  readonly network: Network;
  readonly random: () => number;
  /** Of the whole link. */
  readonly reset: () => void;
}

export class Lane {
  readonly #options: LaneOptions;
  /** In their order; an empty chunk stands for the FIN. */
  readonly #waiting: Array<{ chunk: Buffer; dueMs: number }> = [];
  #waitingBytes = 0;
  #lastDueMs = 0;
  #timer: NodeJS.Timeout | undefined;
  /** The receiver takes nothing more until it says so. */
  #full = false;
  #stopped = false;

  constructor(options: LaneOptions) {
    this.#options = options;
    const { from, to } = options;
    from.on("data", (chunk: Buffer) => this.#take(chunk));
    from.on("end", () => this.#take(Buffer.alloc(0)));
    to.on("drain", () => {
      this.#full = false;
      this.pump();
    });
  }

  get direction(): Direction {
    return this.#options.direction;
  }

  #take(chunk: Buffer): void {
    if (this.#stopped) return;
    const { delayMs = 0, jitterMs = 0 } = this.#options.network.quality;
    const dueMs = performance.now() + delayMs + jitterMs * this.#options.random();
    // Jitter delays what follows, too: TCP hands nothing out before what came before it.
    this.#lastDueMs = Math.max(this.#lastDueMs, dueMs);
    this.#waiting.push({ chunk, dueMs: this.#lastDueMs });
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES) this.#options.from.pause();
    this.pump();
  }

  /** Sends what is due. */
  pump(): void {
    clearTimeout(this.#timer);
    const { from, to, direction, network } = this.#options;
    while (!this.#stopped && !this.#full && !network.stalled.has(direction)) {
      const [head] = this.#waiting;
      if (head === undefined) break;
      const waitMs = head.dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.pump(), waitMs);
        break;
      }
      if (head.chunk.length === 0) {
        this.finish();
        return;
      }
      this.#send(head.chunk.subarray(0, this.#allowedBytes(head.chunk.length)));
    }
    if (this.#waitingBytes <= MAX_WAITING_BYTES && !this.#stopped && !to.destroyed) from.resume();
  }

  #allowedBytes(bytes: number): number {
    const { quality, cutAt } = this.#options.network;
    const { bytesPerSecond = Number.POSITIVE_INFINITY } = quality;
    const step = Math.max(1, Math.floor((bytesPerSecond * THROTTLE_STEP_MS) / 1_000));
    const untilCut = cutAt?.direction === this.direction ? cutAt.left : Number.POSITIVE_INFINITY;
    return Math.min(bytes, step, untilCut);
  }

  #send(bytes: Buffer): void {
    const { to, direction, network, reset } = this.#options;
    const head = this.#waiting[0]!;
    const { bytesPerSecond } = network.quality;
    this.#waitingBytes -= bytes.length;
    if (bytes.length === head.chunk.length) this.#waiting.shift();
    else head.chunk = head.chunk.subarray(bytes.length);
    network.bytes[direction] += bytes.length;
    if (bytesPerSecond !== undefined) {
      const freeMs = performance.now() + (bytes.length / bytesPerSecond) * 1_000;
      this.#lastDueMs = Math.max(this.#lastDueMs, freeMs);
      const next = this.#waiting[0];
      if (next !== undefined) next.dueMs = Math.max(next.dueMs, freeMs);
    }
    const { cutAt } = network;
    if (cutAt?.direction === direction) cutAt.left -= bytes.length;
    if (cutAt?.left === 0) {
      network.cutAt = undefined;
      cutAt.onCut();
      this.#stopped = true;
      // After a hang of this process the timer is due before anybody in it had a turn to read; so once more behind that.
      to.write(bytes, () => setTimeout(() => setImmediate(reset), RESET_AFTER_MS));
      return;
    }
    this.#full = !to.write(bytes);
  }

  /** The receiver gets a FIN; what waits, and whatever comes from now on, is dropped. */
  finish(): void {
    this.stop();
    this.#options.from.resume();
    this.#options.to.end();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
  }
}
