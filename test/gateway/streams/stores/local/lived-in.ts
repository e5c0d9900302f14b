import type { LocalStreams } from "../../../../../gateway/streams/stores/local/local.ts";
import type { HostileDisk } from "./hostile-disk.ts";
import type { StreamModel } from "./stream-model.ts";

/** What writers and readers know of the world that they live in (hostile-world.ts). */
export interface LivedIn {
  readonly random: () => number;
  readonly models: ReadonlyMap<string, StreamModel>;
  readonly streams: LocalStreams;
  readonly disk: HostileDisk;
  /** Of what is handed in now. */
  readonly bornMs: number;
  below(limit: number): number;
  pick<T>(choices: readonly T[]): T;
  start(what: string, work: Promise<unknown>): void;
}
