/**
 * The load generator's engine: many connections, each with a window of requests under way. It is
 * told nothing but bytes, prepared before, so that its own work stays far below the server's.
 *
 *   talk.next() → bytes → server → chunk → talk.taken(chunk) = requests answered → the next ones
 */
import { connect, type Socket } from "node:net";
import { percentile } from "../floor.ts";

/** What is said on one connection. */
export interface Talk {
  /** Bytes that open the connection, and how many bytes the server answers to them. */
  readonly greeting?: { readonly bytes: Buffer; readonly answerBytes: number };
  /**
   * Opens the connection where the answer's length is not known; resolves when requests may be sent.
   * @param send also for what is said unasked later on
   */
  meet?(send: (bytes: Buffer) => void): Promise<void>;
  /** The bytes of the next request; they may be written to again once it is answered. */
  next(): Buffer | readonly Buffer[];
  /** How many requests this chunk finished. @throws when the server refused one */
  taken(chunk: Buffer): number;
}

export interface DriveOptions {
  readonly host: string;
  readonly port: number;
  /** Requests under way on each connection. */
  readonly window: number;
  readonly warmMs: number;
  readonly measureMs: number;
  /** Called when the measured time begins. */
  readonly onWarm: () => void;
}

export interface Driven {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/**
 * All connections read into the same memory, in pieces as large as the kernel has them: 64 KiB of new
 * memory for each read, as Node has it by itself, were more work than a page of a thousand records is.
 */
const memory = Buffer.alloc(1_048_576);
/** Connections that are opened at once; a server's backlog is not what is measured. */
const OPENING = 100;
const MAX_SAMPLES = 400_000;
const STALLED_MS = 20_000;

export async function drive(talks: readonly Talk[], options: DriveOptions): Promise<Driven> {
  const lines: Line[] = [];
  try {
    for (let at = 0; at < talks.length; at += OPENING) {
      const some = talks.slice(at, at + OPENING).map((talk) => new Line(talk, options));
      lines.push(...some);
      await Promise.all(some.map((line) => line.opened));
    }
    const failed = Promise.race(lines.map((line) => line.failed));
    // Whoever waits below hears of it.
    failed.catch(() => {});
    const wait = (ms: number) => Promise.race([new Promise((resolve) => setTimeout(resolve, ms)), failed]);
    for (const line of lines) line.begin();
    await wait(options.warmMs);
    for (const line of lines) line.measure();
    options.onWarm();
    const began = performance.now();
    await wait(options.measureMs);
    const seconds = (performance.now() - began) / 1000;
    const requests = lines.reduce((sum, line) => sum + line.answered, 0);
    const waits = lines.flatMap((line) => line.waits);
    if (requests === 0) throw new Error("nothing was answered");
    return { requests, seconds, p50Ms: percentile(waits, 0.5), p99Ms: percentile(waits, 0.99) };
  } finally {
    for (const line of lines) line.end();
  }
}

/** One connection. */
class Line {
  readonly opened: Promise<void>;
  /** Never resolves; rejects when the connection ends or the server refuses. */
  readonly failed: Promise<never>;
  answered = 0;
  waits: number[] = [];
  readonly #talk: Talk;
  readonly #socket: Socket;
  readonly #window: number;
  readonly #maxSamples = MAX_SAMPLES;
  /** When each request under way was sent, as a ring: answers come in the order of the requests. */
  readonly #sentMs: Float64Array;
  #sent = 0;
  #heard = 0;
  #measuring = false;
  #ended = false;

  constructor(talk: Talk, options: DriveOptions) {
    this.#talk = talk;
    this.#window = options.window;
    this.#sentMs = new Float64Array(options.window);
    const onread = {
      buffer: memory,
      callback: (bytes: number): boolean => {
        this.#onBytes(memory.subarray(0, bytes));
        return true;
      },
    };
    this.#socket = connect({ port: options.port, host: options.host, onread }).setNoDelay(true);
    this.failed = new Promise((_, reject) => {
      this.#socket.on("error", reject);
      this.#socket.setTimeout(STALLED_MS, () => reject(new Error("the server answers no more")));
      this.#socket.on("close", () => {
        if (!this.#ended) reject(new Error("the server closed the connection"));
      });
      this.#onBytes = (chunk) => {
        try {
          this.#hear(chunk);
        } catch (error) {
          reject(error);
        }
      };
    });
    this.failed.catch(() => {});
    this.opened = this.#open();
  }

  begin(): void {
    this.#send(this.#window);
  }

  measure(): void {
    this.#measuring = true;
  }

  end(): void {
    this.#ended = true;
    this.#measuring = false;
    this.#socket.destroy();
  }

  #onBytes: (chunk: Buffer) => void = () => {};
  #greetingLeft = 0;
  #greeted: () => void = () => {};

  async #open(): Promise<void> {
    const greeting = this.#talk.greeting;
    const connected = new Promise<void>((resolve) => this.#socket.once("connect", resolve));
    await Promise.race([connected, this.failed]);
    const met = this.#talk.meet?.((bytes) => void this.#socket.write(bytes));
    if (met !== undefined) await Promise.race([met, this.failed]);
    if (greeting === undefined) return;
    const greeted = new Promise<void>((resolve) => {
      this.#greeted = resolve;
    });
    this.#greetingLeft = greeting.answerBytes;
    this.#socket.write(greeting.bytes);
    await Promise.race([greeted, this.failed]);
  }

  #hear(chunk: Buffer): void {
    if (this.#ended) return;
    if (this.#greetingLeft > 0) {
      const passed = Math.min(this.#greetingLeft, chunk.length);
      this.#greetingLeft -= passed;
      if (this.#greetingLeft === 0) this.#greeted();
      if (passed === chunk.length) return;
      chunk = chunk.subarray(passed);
    }
    const done = this.#talk.taken(chunk);
    if (done === 0) return;
    if (this.#measuring) {
      this.answered += done;
      const now = performance.now();
      for (let i = 0; i < done && this.waits.length < this.#maxSamples; i++) {
        this.waits.push(now - this.#sentMs[(this.#heard + i) % this.#window]!);
      }
    }
    this.#heard += done;
    this.#send(done);
  }

  #send(count: number): void {
    const now = performance.now();
    this.#socket.cork();
    for (let i = 0; i < count; i++) {
      this.#sentMs[this.#sent++ % this.#window] = now;
      const bytes = this.#talk.next();
      if (Buffer.isBuffer(bytes)) this.#socket.write(bytes);
      else for (const part of bytes as readonly Buffer[]) this.#socket.write(part);
    }
    this.#socket.uncork();
  }
}
