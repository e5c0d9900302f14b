/**
 * Plays fragmented MP4 as it arrives, close to its live end, through Media Source Extensions.
 * Knows which moment of the producer's clock is on the screen.
 */

/**
 * How much is left when it is least: that is what could be seen sooner. Where a whole group of
 * pictures comes at once, much is waiting just after it came, and none of that can be skipped.
 */
const JUMP_SPARE_S = 0.8;
const HURRY_SPARE_S = 0.45;
const HURRY_RATE = 1.1;
const CUSHION_S = 0.3;
const STEER_MS = 250;
/** The least is looked for over so long, or over longer than the longest pause between two arrivals. */
const LOOK_BACK_MS = 2_500;
const PAUSES_IN_LOOK_BACK = 1.5;
/** A pause is forgotten within some hundred arrivals. */
const PAUSE_DECAY = 0.995;
const REMEMBERED_SAMPLES = 120;
const KEEP_S = 20;
const MAX_QUEUED_BYTES = 16 * 1_048_576;

interface Piece {
  readonly bytes: ArrayBuffer;
  /** Of its first picture; undefined for an init segment. */
  readonly producerUs: number | undefined;
}

/** That this moment of the media is that moment of the producer's clock. */
interface Anchor {
  readonly mediaS: number;
  readonly producerUs: number;
}

export class LivePlayer {
  readonly #video: HTMLVideoElement;
  readonly #onFailed: (reason: string) => void;
  readonly #source = new MediaSource();
  readonly #address = URL.createObjectURL(this.#source);
  readonly #steering: number;
  #buffer: SourceBuffer | undefined;
  #queue: Piece[] = [];
  #appending: Piece | undefined;
  #anchors: Anchor[] = [];
  #endS = 0;
  /** Seconds left to play, one sample at each turn of the wheel. */
  #samples: number[] = [];
  #lastArrivalMs = performance.now();
  #longestPauseMs = 0;
  #started = false;
  #closed = false;

  static canPlay(mimeType: string): boolean {
    return typeof MediaSource !== "undefined" && MediaSource.isTypeSupported(mimeType);
  }

  constructor(video: HTMLVideoElement, mimeType: string, onFailed: (reason: string) => void) {
    this.#video = video;
    this.#onFailed = onFailed;
    video.src = this.#address;
    this.#source.addEventListener("sourceopen", () => {
      if (this.#closed) return;
      this.#buffer = this.#source.addSourceBuffer(mimeType);
      this.#buffer.addEventListener("updateend", () => this.#appended());
      this.#pump();
    });
    this.#steering = window.setInterval(() => this.#steer(), STEER_MS);
  }

  append(bytes: ArrayBuffer, producerUs: number | undefined): void {
    const nowMs = performance.now();
    this.#longestPauseMs = Math.max(this.#longestPauseMs * PAUSE_DECAY, nowMs - this.#lastArrivalMs);
    this.#lastArrivalMs = nowMs;
    this.#queue.push({ bytes, producerUs });
    const queued = this.#queue.reduce((sum, piece) => sum + piece.bytes.byteLength, 0);
    if (queued > MAX_QUEUED_BYTES) this.#fail("this browser cannot keep up with the camera");
    else this.#pump();
  }

  /** What is on the screen, in the producer's time; undefined while there is nothing. */
  get shownUs(): number | undefined {
    const at = this.#video.currentTime;
    const anchor = this.#anchors.findLast(({ mediaS }) => mediaS <= at + 0.001);
    if (!this.#started || anchor === undefined) return undefined;
    return anchor.producerUs + (at - anchor.mediaS) * 1e6;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#steering);
    URL.revokeObjectURL(this.#address);
    this.#video.removeAttribute("src");
    this.#video.load();
  }

  #pump(): void {
    const buffer = this.#buffer;
    if (this.#closed || buffer === undefined || buffer.updating) return;
    const piece = this.#queue.shift();
    if (piece === undefined) return;
    this.#appending = piece;
    try {
      buffer.appendBuffer(piece.bytes);
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  #appended(): void {
    const buffer = this.#buffer;
    if (this.#closed || buffer === undefined) return;
    const piece = this.#appending;
    this.#appending = undefined;
    const ranges = buffer.buffered;
    if (piece?.producerUs !== undefined && ranges.length > 0) {
      const lastStartS = ranges.start(ranges.length - 1);
      this.#anchors.push({ mediaS: Math.max(lastStartS, this.#endS), producerUs: piece.producerUs });
      this.#endS = ranges.end(ranges.length - 1);
      if (!this.#started) this.#begin();
    }
    if (this.#queue.length > 0) this.#pump();
    else this.#trim(buffer);
  }

  #begin(): void {
    this.#started = true;
    this.#video.currentTime = Math.max(this.#anchors[0]!.mediaS, this.#endS - CUSHION_S);
    // Muted, so it may begin by itself; where it may not, the next turn of the wheel tries again.
    this.#video.play().catch(() => {});
  }

  /** Removes what was seen long ago. */
  #trim(buffer: SourceBuffer): void {
    const before = this.#video.currentTime - KEEP_S;
    if (buffer.updating || buffer.buffered.length === 0 || buffer.buffered.start(0) > before - 5) return;
    buffer.remove(0, before);
    this.#anchors = this.#anchors.filter(({ mediaS }) => mediaS >= before - 5);
  }

  #steer(): void {
    const { error } = this.#video;
    if (error !== null) this.#fail(error.message || "the picture cannot be decoded");
    if (!this.#started || this.#closed) return;
    const leftS = this.#endS - this.#video.currentTime;
    // Negative: the clock of the media began anew.
    if (leftS < 0) this.#jumpTo(this.#endS - CUSHION_S);
    this.#samples.push(leftS);
    if (this.#samples.length > REMEMBERED_SAMPLES) this.#samples.shift();
    const looked = Math.ceil(Math.max(LOOK_BACK_MS, this.#longestPauseMs * PAUSES_IN_LOOK_BACK) / STEER_MS);
    const spareS = this.#samples.length < looked ? 0 : Math.min(...this.#samples.slice(-looked));
    if (spareS > JUMP_SPARE_S) this.#jumpTo(this.#video.currentTime + spareS - CUSHION_S);
    this.#video.playbackRate = spareS > HURRY_SPARE_S ? HURRY_RATE : 1;
    if (this.#video.paused) this.#video.play().catch(() => {});
  }

  #jumpTo(mediaS: number): void {
    this.#video.currentTime = Math.max(0, mediaS);
    this.#samples = [];
  }

  #fail(reason: string): void {
    if (this.#closed) return;
    this.close();
    this.#onFailed(reason);
  }
}
