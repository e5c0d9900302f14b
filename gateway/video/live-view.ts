/**
 * One camera, live: each picture becomes a movie fragment at once and goes to all viewers.
 *
 * Decoding times run on without a gap, across units, publishers and outages: a player that waits
 * for missing time would stand still. When a picture was taken travels beside it.
 */

import { describeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { type Picture, VIDEO_TIMESCALE, type VideoFormat } from "./depacketise/video-format.ts";
import { type InitSegment, initSegmentOf, VIDEO_TRACK_ID } from "./fragments/init-segment.ts";
import { movieFragment, samplesOf } from "./fragments/movie-fragment.ts";
import { type KeptGroups, LiveMemory } from "./live-memory.ts";
import type { LiveViewer } from "./video.ts";

/** The most that is kept of a group of pictures for joiners, and that waits for an init segment. */
const MAX_GROUP_BYTES = 16 * 1_048_576;
/** What a picture costs in memory beside its bytes, about. */
const PICTURE_COST_BYTES = 256;
/** A viewer with more waiting is skipped to the next key frame. */
const MAX_BACKLOG_BYTES = 4 * 1_048_576;
/** Longer pauses between pictures are shown as one usual step. */
const MAX_STEP = 2 * VIDEO_TIMESCALE;
/** Until two pictures have told the real one: 1/30 s. */
const FIRST_STEP = 3_000;

interface Segment {
  readonly bytes: Buffer;
  readonly producerUs: number;
  readonly keyFrame: boolean;
}

interface Watcher {
  readonly viewer: LiveViewer;
  /** Of which init segment was sent. */
  format: VideoFormat | undefined;
  waitsForKeyFrame: boolean;
}

/** The pieces are views, which hold all that came with them. */
function copied({ pieces, bytes }: Picture): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes);
  let at = 0;
  for (const piece of pieces) at += piece.copy(copy, at);
  return copy;
}

export class LiveView implements KeptGroups {
  readonly #memory: LiveMemory;
  readonly #watchers = new Set<Watcher>();
  readonly #log: Log;
  #format: VideoFormat | undefined;
  #init: InitSegment | undefined;
  /** The newest group of pictures; begins with a key frame unless empty. */
  #group: Segment[] = [];
  #groupBytes = 0;
  /** Segments that wait until the init segment is made, from a key frame on; undefined where it cannot be made. */
  #early: Segment[] | undefined = [];
  #earlyBytes = 0;
  /** Pictures whose order of decoding and showing differ are shown one group at a time. */
  #reordered = false;
  #held: Picture[] = [];
  #heldBytes = 0;
  #lastPts: number | undefined;
  #decodeTime = 0;
  #step = FIRST_STEP;
  #sequenceNumber = 1;
  #newestUs: number | undefined;

  /** @param memory of all views; one of its own unless told */
  constructor(log: Log, memory = new LiveMemory()) {
    this.#log = log;
    this.#memory = memory;
  }

  get viewers(): number {
    return this.#watchers.size;
  }

  /** Of the newest picture. */
  get format(): VideoFormat | undefined {
    return this.#format;
  }

  /** The newest picture that was shown, µs since 1970 UTC. */
  get newestUs(): number | undefined {
    return this.#newestUs;
  }

  /** @param nextPts90k when the picture after this one is shown, where that is known */
  push(format: VideoFormat, picture: Picture, nextPts90k: number | undefined): void {
    this.#push(format, picture, nextPts90k);
    this.#memory.keeps(this, this.#groupBytes + this.#heldBytes + this.#earlyBytes);
  }

  letGo(): void {
    this.#releaseHeld(undefined);
    this.#dropGroup();
    if (this.#early !== undefined) this.#early = [];
    this.#earlyBytes = 0;
  }

  #dropGroup(): void {
    this.#group = [];
    this.#groupBytes = 0;
  }

  #push(format: VideoFormat, picture: Picture, nextPts90k: number | undefined): void {
    if (format !== this.#format) this.#change(format);
    this.#newestUs = Math.max(this.#newestUs ?? 0, picture.producerUs);
    const backwards = this.#lastPts !== undefined && picture.pts90k < this.#lastPts;
    if (backwards && this.#lastPts! - picture.pts90k < MAX_STEP) this.#reordered = true;
    this.#lastPts = picture.pts90k;
    if (!this.#reordered) {
      this.#emit([picture], nextPts90k);
      return;
    }
    if (picture.keyFrame) this.#releaseHeld(picture.pts90k);
    this.#held.push({ ...picture, pieces: [copied(picture)] });
    this.#heldBytes += picture.bytes + PICTURE_COST_BYTES;
    if (this.#heldBytes > MAX_GROUP_BYTES) this.#releaseHeld(nextPts90k);
  }

  watch(viewer: LiveViewer): () => void {
    const watcher: Watcher = { viewer, format: undefined, waitsForKeyFrame: true };
    this.#watchers.add(watcher);
    if (this.#init !== undefined) {
      for (const segment of this.#group) this.#sendOne(watcher, segment);
    }
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  #change(format: VideoFormat): void {
    this.#releaseHeld(undefined);
    this.#format = format;
    this.#init = undefined;
    this.#dropGroup();
    this.#early = [];
    this.#earlyBytes = 0;
    this.#reordered = false;
    this.#lastPts = undefined;
    // A picture that depends on others means nothing behind a new init segment.
    for (const watcher of this.#watchers) watcher.waitsForKeyFrame = true;
    initSegmentOf(format).then(
      (init) => {
        if (this.#format !== format) return;
        this.#init = init;
        const early = this.#early ?? [];
        this.#early = [];
        this.#earlyBytes = 0;
        for (const segment of early) this.#send(segment);
      },
      (error: unknown) => {
        this.#log.warn({ error: describeError(error) }, "no live view of this format");
        if (this.#format === format) this.#early = undefined;
      },
    );
  }

  #releaseHeld(nextPts90k: number | undefined): void {
    const held = this.#held;
    this.#held = [];
    this.#heldBytes = 0;
    if (held.length > 0) this.#emit(held, nextPts90k);
  }

  #emit(pictures: readonly Picture[], nextPts90k: number | undefined): void {
    const samples = samplesOf(pictures, nextPts90k);
    const last = samples.at(-1)!;
    const known = pictures.length > 1 || (nextPts90k !== undefined && nextPts90k > pictures[0]!.pts90k);
    if (known && last.duration > 0 && last.duration <= MAX_STEP) this.#step = last.duration;
    // Also a step back, when a publisher came again with other RTP times, is a usual step.
    else samples[samples.length - 1] = { ...last, duration: this.#step };
    const run = { trackId: VIDEO_TRACK_ID, decodeTime: this.#decodeTime, samples };
    const first = pictures[0]!;
    const segment: Segment = {
      bytes: movieFragment(this.#sequenceNumber++, [run]),
      producerUs: first.producerUs,
      keyFrame: first.keyFrame,
    };
    this.#decodeTime += samples.reduce((sum, sample) => sum + sample.duration, 0);
    if (this.#init !== undefined) this.#send(segment);
    else this.#keepEarly(segment);
  }

  #keepEarly(segment: Segment): void {
    const early = this.#early;
    if (early === undefined || (early.length === 0 && !segment.keyFrame)) return;
    this.#earlyBytes += segment.bytes.length + PICTURE_COST_BYTES;
    if (this.#earlyBytes <= MAX_GROUP_BYTES) early.push(segment);
    else {
      this.#early = [];
      this.#earlyBytes = 0;
    }
  }

  #send(segment: Segment): void {
    if (segment.keyFrame) this.#dropGroup();
    const kept = segment.keyFrame || this.#group.length > 0;
    const costBytes = segment.bytes.length + PICTURE_COST_BYTES;
    if (kept && this.#groupBytes + costBytes <= MAX_GROUP_BYTES) {
      this.#group.push(segment);
      this.#groupBytes += costBytes;
    } else {
      // Half a group is of no use to a joiner, who waits for the next key frame instead.
      this.#dropGroup();
    }
    for (const watcher of [...this.#watchers]) this.#sendOne(watcher, segment);
  }

  /** A viewer that throws is let go; it harms neither the others nor the camera. */
  #sendOne(watcher: Watcher, segment: Segment): void {
    try {
      if (segment.keyFrame && watcher.viewer.backlogBytes() <= MAX_BACKLOG_BYTES) {
        watcher.waitsForKeyFrame = false;
      } else if (watcher.viewer.backlogBytes() > MAX_BACKLOG_BYTES) {
        watcher.waitsForKeyFrame = true;
      }
      if (watcher.waitsForKeyFrame) return;
      if (watcher.format !== this.#format) {
        watcher.viewer.init(this.#init!.mimeType, this.#init!.bytes);
        watcher.format = this.#format;
      }
      watcher.viewer.media(segment.bytes, segment.producerUs);
    } catch (error) {
      this.#watchers.delete(watcher);
      this.#log.warn({ error: describeError(error) }, "a viewer failed");
    }
  }
}
