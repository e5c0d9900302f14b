/**
 * The dates of streams and of registered readers. Sequence numbers and consumer ARNs keep of a date its second alone, as AWS's do, and by it
 * a stream or a reader is told from an earlier one of its name. So whoever is made anew is dated into a later second than its predecessor:
 *
 *   made 7.1 s → gone → made anew 7.4 s, dated 8.0 s → gone → made anew 7.8 s, dated 9.0 s
 *
 * A date may be ahead of the clock by as many seconds as a name was used again within one.
 *
 * What is gone is remembered until the clock is past its second. Where the clock was set back, by a year even, that is until it is there
 * again: those dated ahead of it are no more than there were when it was set back. Not known is what was gone before a restart, what the
 * clock had been past when it was set back, and what another gateway on the cluster made and deleted between two looks at the list of
 * streams: that just its second is given again is left to chance.
 */
import type { Clock } from "../../../runtime/clock.ts";

interface Dated {
  readonly createdMs: number;
}

export class OwnSeconds {
  readonly #clock: Clock;
  /** By stream, or stream/reader, as no stream has a slash in its name: the latest second of those that are gone. */
  readonly #gone = new Map<string, number>();
  #lookedAt = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many names are remembered. */
  get size(): number {
    return this.#gone.size;
  }

  /** When a stream was made that is made now. */
  dateStream(name: string): number {
    return this.#date(name);
  }

  /** When a reader was registered that is registered now. */
  dateReader(stream: string, name: string): number {
    return this.#date(`${stream}/${name}`);
  }

  /**
   * May be said too early, or of one that stays after all.
   * @param shards children of a split are dated behind their parents, so that their seconds may be later than the stream's own
   * @param readers those that went with it: in their ARNs is the stream's name, but not when it was made
   */
  streamGone(
    name: string,
    shards: Iterable<Dated>,
    readers: Iterable<Dated & { readonly name: string }>,
  ): void {
    for (const shard of shards) this.#remember(name, shard);
    for (const reader of readers) this.readerGone(name, reader);
  }

  readerGone(stream: string, reader: Dated & { readonly name: string }): void {
    this.#remember(`${stream}/${reader.name}`, reader);
  }

  #date(key: string): number {
    const nowMs = Math.floor(this.#clock.nowUs() / 1000);
    const gone = this.#gone.get(key);
    return gone === undefined ? nowMs : Math.max(nowMs, (gone + 1) * 1000);
  }

  #remember(key: string, { createdMs }: Dated): void {
    const nowSecond = Math.floor(this.#clock.nowUs() / 1_000_000);
    this.#forgetBefore(nowSecond);
    const second = Math.floor(createdMs / 1000);
    if (second >= nowSecond) this.#gone.set(key, Math.max(second, this.#gone.get(key) ?? 0));
  }

  /** Once a second at most, as all are looked at. */
  #forgetBefore(nowSecond: number): void {
    if (nowSecond === this.#lookedAt) return;
    this.#lookedAt = nowSecond;
    for (const [key, second] of this.#gone) if (second < nowSecond) this.#gone.delete(key);
  }
}
