/**
 * Puts frames into publishes, compressed where it pays: in envelopes (protocol/publish-envelope.ts) to a
 * gateway that takes them, one frame behind the other to any other.
 *
 *   frames → lane.pack → payload     calls overlap; they resolve in their order
 *
 * `auto` compresses what becomes smaller by a sixth at least, and learns it of each stream by trying: as
 * long as tries fail, ever fewer are made. So what is compressed already, or random, costs next to
 * nothing, and a stream that changes is found out. Compressing costs a small part of what sending over
 * a radio costs, and less than reading and storing the records did; figures are in docs/design/0024.
 */
import type { Frame } from "../../protocol/frame.ts";
import { MAX_ENVELOPED_BYTES, seal, sealSync } from "../../protocol/publish-envelope.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { LanePacker, Packed } from "./uplink-lane.ts";

export type Compression = "auto" | "always" | "never";

/** Below this the network's own headers outweigh what is saved. */
const WORTHWHILE_BYTES = 512;
/** So much is compressed while a thread would be on its way to it. */
const SEALED_IN_CALL_BYTES = 16 * 1_024;
/** What is not smaller by this factor is sent plain. */
const MIN_RATIO = 1.2;
/** Publishes of a stream that go plain after the first try that failed; twice as many after each further one. */
const FIRST_PAUSE = 4;
const LONGEST_PAUSE = 256;
/** Streams whose tries are remembered; all further ones are taken for one. */
const MAX_STREAMS = 256;

/** What is known of how a stream compresses. */
interface Trial {
  /** Publishes that go plain before the next try. */
  left: number;
  pause: number;
}

export class PublishPacker {
  readonly #mode: Compression;
  readonly #trials = new Map<string, Trial>();
  readonly #compressedBytes;

  constructor(mode: Compression, metrics: Metrics) {
    this.#mode = mode;
    this.#compressedBytes = metrics.counter(
      "headwater_uplink_compressed_bytes_total",
      "Bytes of frames that were compressed, also where it did not pay",
    );
  }

  /**
   * One order of publishes: what is asked for first resolves first.
   * @param accepts whether the gateway takes envelopes; asked each time
   */
  lane(accepts: () => boolean): LanePacker {
    let last: Promise<unknown> = Promise.resolve();
    return {
      pack: (frames) => {
        const before = last;
        const packing = this.#pack(frames, accepts());
        const inOrder = before.then(() => packing);
        // Who asked hears of a failure; here it only holds a place.
        last = inOrder.catch(() => {});
        return inOrder;
      },
    };
  }

  /** @param frames their bytes must stay as they are until it resolves */
  async #pack(frames: readonly Frame[], accepts: boolean): Promise<Packed> {
    const plain = frames.length === 1 ? frames[0]!.bytes : Buffer.concat(frames.map((frame) => frame.bytes));
    const payload = accepts ? await this.#compressed(frames, plain) : plain;
    return { payload, frameBytes: plain.length };
  }

  /** `plain` itself where it is not worth while. */
  async #compressed(frames: readonly Frame[], plain: Buffer): Promise<Buffer> {
    const { length } = plain;
    if (this.#mode === "never" || length < WORTHWHILE_BYTES || length > MAX_ENVELOPED_BYTES) return plain;
    const trial = this.#mode === "auto" ? this.#trialOf(frames) : undefined;
    if (trial !== undefined && trial.left > 0) {
      trial.left--;
      return plain;
    }
    this.#compressedBytes.inc(length);
    const sealed = length <= SEALED_IN_CALL_BYTES ? sealSync(plain) : await seal(plain);
    if (trial !== undefined) learn(trial, length / sealed.length);
    const pays = trial === undefined ? sealed.length < length : length / sealed.length >= MIN_RATIO;
    return pays ? sealed : plain;
  }

  /** The largest frame stands for its publish. */
  #trialOf(frames: readonly Frame[]): Trial {
    let largest = frames[0]!;
    for (const frame of frames) if (frame.bytes.length > largest.bytes.length) largest = frame;
    let name = largest.stream;
    if (!this.#trials.has(name) && this.#trials.size >= MAX_STREAMS) name = "";
    let trial = this.#trials.get(name);
    if (trial === undefined) {
      trial = { left: 0, pause: 0 };
      this.#trials.set(name, trial);
    }
    return trial;
  }
}

function learn(trial: Trial, ratio: number): void {
  if (ratio >= MIN_RATIO) trial.pause = 0;
  else trial.pause = Math.min(LONGEST_PAUSE, Math.max(FIRST_PAUSE, 2 * trial.pause));
  trial.left = trial.pause;
}
