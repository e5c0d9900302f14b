/** A real Api over real Streams in a temporary folder; the other stages stand still. */
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";
import type { Analytics, StatementStatus } from "../../../gateway/analytics/analytics.ts";
import { Api, type ApiOptions } from "../../../gateway/api/api.ts";
import type { Delivery } from "../../../gateway/delivery/delivery.ts";
import type { Ingest } from "../../../gateway/ingest/ingest.ts";
import { type LocalStreams, openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import type { Fragment, LiveViewer, Video } from "../../../gateway/video/video.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { spoilReads } from "../../support/spoilt-reads.ts";

export const KEY: AccessKeyConfig = { id: "AKIAEVERYTHING", secret: "secret of everything 1", allow: ["*"] };
export const PUT_ONLY: AccessKeyConfig = {
  id: "AKIAPUTONLY",
  secret: "secret of put only 22",
  allow: ["kinesis:PutRecords", "kinesis:Describe*"],
};

/** A clock that tests push forward; otherwise it goes as the system's. */
export class HandClock implements Clock {
  aheadMs = 0;
  nowUs(): number {
    return systemClock.nowUs() + this.aheadMs * 1000;
  }
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.aheadMs;
  }
}

/** A clock that stands still but when a test pushes it forward, however long this machine takes for anything. */
export class StillClock extends HandClock {
  // Whole numbers, as of two others the difference may be a little less than what it was pushed by.
  readonly #us = Math.floor(systemClock.nowUs());
  readonly #monotonicMs = Math.floor(systemClock.monotonicMs());
  override nowUs(): number {
    return this.#us + this.aheadMs * 1000;
  }
  override monotonicMs(): number {
    return this.#monotonicMs + this.aheadMs;
  }
}

/** One camera, `gate`, whose viewers are kept for the test to feed. */
export class StandingVideo implements Video {
  readonly viewers = new Set<LiveViewer>();
  readonly fragment: Fragment = {
    id: "0000000000000001-1",
    camera: "gate",
    epoch: 1n,
    sequence: 1n,
    producerUs: 1_000_000,
    durationUs: 2_000_000,
    bytes: 4,
    state: "whole",
  };
  async start(): Promise<void> {}
  async close(): Promise<void> {}
  openFeed(): never {
    throw new Error("no feeds here");
  }
  cameras() {
    return [];
  }
  async fragments(camera: string): Promise<Fragment[]> {
    return camera === "gate" ? [this.fragment] : [];
  }
  async readFragment(camera: string, id: string): Promise<Buffer | undefined> {
    return camera === "gate" && id === this.fragment.id ? Buffer.from("ftyp") : undefined;
  }
  watch(camera: string, viewer: LiveViewer): () => void {
    if (camera !== "gate") throw new Error("no such camera");
    this.viewers.add(viewer);
    return () => this.viewers.delete(viewer);
  }
}

export interface Fixture {
  readonly api: Api;
  readonly streams: LocalStreams;
  readonly video: StandingVideo;
  readonly statements: StatementStatus[];
  readonly origin: string;
  readonly port: number;
  /** The same folder, keys and port number, as after a restart. */
  restartApi(): Promise<void>;
  close(): Promise<void>;
}

export async function openFixture(
  options: {
    clock?: Clock;
    log?: Log;
    accessKeys?: AccessKeyConfig[];
    /** Of `freePorts` for who restarts the API: any other may be given to somebody's connection meanwhile. */
    port?: number;
    api?: Partial<ApiOptions>;
  } = {},
): Promise<Fixture> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-api-"));
  const clock = options.clock ?? systemClock;
  const log = options.log ?? silentLog;
  const streams = spoilReads(
    await openLocalStreams({ dir: join(dir, "streams"), clock, log, metrics: new Metrics() }),
  );
  await writeFile(join(dir, "index.html"), "<!doctype html><title>console</title>");
  await writeFile(join(dir, "console.js"), "export {};");
  await writeFile(join(dir, ".hidden.js"), "secret");
  const video = new StandingVideo();
  const statements: StatementStatus[] = [];
  const nothing = { start: async () => {}, close: async () => {} };
  const ingest: Ingest = {
    ...nothing,
    devices: () => [],
    quarantine: () => ({ publishes: 0, keptBytes: 0 }),
  };
  const delivery: Delivery = { ...nothing, status: () => [], recent: () => [] };
  const analytics: Analytics = { ...nothing, status: () => statements };
  const open = async (port: number): Promise<Api> => {
    const api = new Api({
      host: "127.0.0.1",
      port,
      clock,
      log,
      metrics: new Metrics(),
      accessKeys: options.accessKeys ?? [KEY, PUT_ONLY],
      streams,
      ingest,
      delivery,
      analytics,
      video,
      previews: { watch: () => () => undefined },
      consoleDir: dir,
      ...options.api,
    });
    await api.start();
    return api;
  };
  let api = await open(options.port ?? 0);
  const { port } = api.address;
  return {
    get api() {
      return api;
    },
    streams,
    video,
    statements,
    port,
    origin: `http://127.0.0.1:${port}`,
    async restartApi() {
      await api.close();
      api = await open(port);
    },
    async close() {
      await api.close();
      await streams.close();
      await removeFolder(dir);
    },
  };
}
