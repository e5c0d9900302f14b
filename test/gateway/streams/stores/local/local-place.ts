/** A temporary folder for the local store, a clock to turn, and a log to look into. */
import { mkdtemp, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type LocalStreams,
  type LocalStreamsOptions,
  openLocalStreams,
} from "../../../../../gateway/streams/stores/local/local.ts";
import { type Clock, systemClock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { removeFolder } from "../../../../support/remove-folder.ts";

export interface LocalPlace {
  readonly dir: string;
  /** Everything logged at warn or error, as `message`. */
  readonly logged: string[];
  metrics: Metrics;
  /** The wall clock; the other clock goes along when it is put forward. */
  nowMs: number | undefined;
  /** What the wall clock is ahead by without the other knowing. */
  jumpMs: number;
  open(more?: Partial<LocalStreamsOptions>): Promise<LocalStreams>;
  remove(): Promise<void>;
  /** The stream's segments in order; there must be one stream. */
  segments(): Promise<string[]>;
}

/** In a temporary folder unless told where. */
export async function makeLocalPlace(folder?: string): Promise<LocalPlace> {
  const dir = folder ?? (await mkdtemp(join(tmpdir(), "headwater-streams-")));
  const logged: string[] = [];
  const log: Log = {
    debug() {},
    info() {},
    warn: (_, message) => logged.push(message),
    error: (_, message) => logged.push(message),
    child: () => log,
  };
  let wallMs: number | undefined;
  let passedMs = 0;
  const place: LocalPlace = {
    dir,
    logged,
    metrics: new Metrics(),
    jumpMs: 0,
    get nowMs() {
      return wallMs;
    },
    set nowMs(value) {
      if (value !== undefined && wallMs !== undefined) passedMs += Math.max(0, value - wallMs);
      wallMs = value;
    },
    open(more) {
      place.metrics = new Metrics();
      const clock: Clock = {
        nowUs: () => (wallMs === undefined ? systemClock.nowUs() : wallMs * 1000) + place.jumpMs * 1000,
        monotonicMs: () => systemClock.monotonicMs() + passedMs,
      };
      return openLocalStreams({ dir, clock, log, metrics: place.metrics, ...more });
    },
    remove: () => removeFolder(dir),
    async segments() {
      const [streamId] = await readdir(join(dir, "logs"));
      const folder = join(dir, "logs", streamId!);
      return (await readdir(folder))
        .filter((name) => name.endsWith(".log"))
        .sort()
        .map((name) => join(folder, name));
    },
  };
  return place;
}
