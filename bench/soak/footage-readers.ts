/** What becomes of the cameras' pictures: the archive's fragments, read as they appear, and live readers by RTSP, one that stays and others that come and go. */
import type { ConnectionOptions } from "node:tls";
import { RtspClient } from "../../protocol/rtsp/client-session.ts";
import { H264Depacketiser, isVcl } from "../../protocol/rtsp/h264.ts";
import { parseRtp } from "../../protocol/rtsp/rtp.ts";
import { CAMERAS } from "./cameras.ts";
import type { Ledger } from "./ledger.ts";
import type { Loops } from "./loops.ts";
import { recordsIn } from "./pictures.ts";
import { type SoakPlace, TLS_DEVICE } from "./soak-place.ts";

const MS = { archive: 2_000, staying: 1_000, passing: 8_000, passes: 4_000 };
/** A unit that was cut off becomes whole when its camera comes again; so far back it is looked for. */
const WINDOW_US = 120_000_000;
const MAX_FRAGMENTS = 1_000;
/** Longer than any run. */
const STAYS_MS = 2 ** 31 - 1;

interface Fragment {
  readonly id: string;
  readonly producerUs: number;
  readonly state: "whole" | "truncated" | "quarantined";
}

export class FootageReaders {
  /** Whole ones, compared picture by picture. */
  fragments = 0;
  /** Times that somebody began to watch. */
  watched = 0;
  readonly #place: SoakPlace;
  readonly #ledger: Ledger;

  constructor(place: SoakPlace, ledger: Ledger) {
    this.#place = place;
    this.#ledger = ledger;
  }

  /** @param live of those who watch `yard`: it must be there, and stay until they are stopped */
  start(archive: Loops, live: Loops): void {
    for (const camera of CAMERAS) this.#readArchive(camera, archive);
    const { rtspPort, rtspsPort, deviceTls } = this.#place;
    const plain = `rtsp://127.0.0.1:${rtspPort}/yard`;
    const secure = `rtsps://127.0.0.1:${rtspsPort}/${TLS_DEVICE}/yard`;
    live.every("who watches yard", MS.staying, () => this.#watch(live, STAYS_MS, plain));
    live.every("who passes by yard", MS.passing, () => this.#watch(live, MS.passes, plain));
    live.every("who passes by yard, over TLS", MS.passing, () =>
      this.#watch(live, MS.passes, secure, deviceTls),
    );
  }

  #readArchive(camera: string, loops: Loops): void {
    const view = this.#ledger.view(`the archive of ${camera}`, camera, true);
    /** Producer times of fragments that were read, by their ids. */
    const seen = new Map<string, number>();
    let newestUs = 0;
    loops.every(view.name, MS.archive, async () => {
      const fromUs = Math.max(0, newestUs - WINDOW_US);
      const query = `camera=${camera}&fromUs=${fromUs}&limit=${MAX_FRAGMENTS}`;
      const text = (await this.#place.read(`/api/footage?${query}`)).toString();
      const { fragments } = JSON.parse(text) as { fragments: readonly Fragment[] };
      for (const { id, producerUs, state } of fragments) {
        // What only reaches into the window was read when it was new.
        if (seen.has(id) || state === "truncated" || producerUs < fromUs) continue;
        const file = await this.#place.read(`/api/footage/${camera}/${encodeURIComponent(id)}.mp4`);
        seen.set(id, producerUs);
        newestUs = Math.max(newestUs, producerUs);
        for (const record of recordsIn(file)) view.take(record);
        this.fragments++;
      }
      for (const [id, producerUs] of seen) if (producerUs < fromUs) seen.delete(id);
    });
  }

  /** Begins with the newest key frame, and misses nothing from there on. */
  async #watch(loops: Loops, forMs: number, url: string, tls?: ConnectionOptions): Promise<void> {
    const view = this.#ledger.passingView(`live at ${url}`, "yard");
    const pictures = new H264Depacketiser();
    let came = 0;
    const take = (rtp: Buffer): void => {
      const packet = parseRtp(rtp);
      const picture = packet && pictures.push(packet);
      for (const nal of picture?.nals.filter(isVcl) ?? []) {
        came++;
        // Behind the NAL unit's head and the slice's.
        view.take(nal.subarray(2));
      }
    };
    let ended = (): void => {};
    const closed = new Promise<void>((resolve) => {
      ended = resolve;
    });
    const client = new RtspClient({ url, tls, onRtp: (_, rtp) => take(rtp), onClose: () => ended() });
    try {
      await client.connect();
      await client.describe();
      await client.setup("play");
      await client.play();
      this.watched++;
      const left = loops.wait(forMs).then(() => true);
      if (!(await Promise.race([left, closed.then(() => false)]))) throw new Error("it was ended");
      if (came === 0 && !loops.stopped) throw new Error("no picture came");
    } finally {
      if (Math.random() < 0.5) client.socket?.destroy();
      await client.close();
    }
  }
}
