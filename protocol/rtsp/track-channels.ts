/** Which track's RTP and RTCP travel on which channel of the connection (RFC 2326 §10.12). */
import type { ChannelPair } from "./transport.ts";

export interface ChannelUse {
  readonly track: number;
  readonly isRtcp: boolean;
}

export class TrackChannels {
  readonly #uses = new Map<number, ChannelUse>();
  readonly #pairs = new Map<number, ChannelPair>();

  /** Tracks that were set up. */
  get tracks(): number {
    return this.#pairs.size;
  }

  pairOf(track: number): ChannelPair | undefined {
    return this.#pairs.get(track);
  }

  useOf(channel: number): ChannelUse | undefined {
    return this.#uses.get(channel);
  }

  /** @param wanted given, when both channels are free; otherwise, or when undefined, the next free pair. */
  assign(track: number, wanted: ChannelPair | undefined): ChannelPair {
    this.#release(track);
    let pair = wanted;
    if (pair === undefined || this.#uses.has(pair.rtp) || this.#uses.has(pair.rtcp)) {
      let free = 0;
      while (this.#uses.has(free) || this.#uses.has(free + 1)) free += 2;
      pair = { rtp: free, rtcp: free + 1 };
    }
    this.#uses.set(pair.rtp, { track, isRtcp: false });
    this.#uses.set(pair.rtcp, { track, isRtcp: true });
    this.#pairs.set(track, pair);
    return pair;
  }

  #release(track: number): void {
    const pair = this.#pairs.get(track);
    if (pair === undefined) return;
    this.#uses.delete(pair.rtp);
    this.#uses.delete(pair.rtcp);
  }
}
