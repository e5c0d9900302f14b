/** An RTSP door with an archive behind it, for tests: opened, opened again on the same folder, published to. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { RtspClient, type RtspClientOptions } from "../../../protocol/rtsp/client-session.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";

export const DEVICES = [
  { id: "pi-1", password: "correct horse" },
  { id: "pi-2", password: "battery staple" },
];

export interface RtspHouse {
  readonly dir: string;
  readonly video: VideoArchive;
  readonly ingest: RtspIngest;
  readonly metrics: Metrics;
  url(path: string): string;
  /** Connected, and to be closed with the test. @param device whose password it gives */
  client(path: string, device?: string, more?: Partial<RtspClientOptions>): Promise<RtspClient>;
  /** Ends it, and opens another on the same folder. */
  again(): Promise<RtspHouse>;
}

export async function openRtspHouse(
  t: TestContext,
  devices: typeof DEVICES = [],
  options: { readonly log?: Log } = {},
): Promise<RtspHouse> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-rtsp-"));
  const lives: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const close of lives) await close();
    await removeFolder(dir);
  });
  return openOn(dir, lives, t, devices, options);
}

async function openOn(
  dir: string,
  lives: (() => Promise<void>)[],
  t: TestContext,
  devices: typeof DEVICES,
  options: { readonly log?: Log },
): Promise<RtspHouse> {
  const metrics = new Metrics();
  const parts = { clock: systemClock, log: options.log ?? silentLog, metrics };
  const video = await openVideo({ ...parts, dir: join(dir, "video"), retentionHours: 1e6, maxBytes: 1e12 });
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices });
  await ingest.start();
  const close = async (): Promise<void> => {
    await ingest.close();
    await video.close();
  };
  lives.push(close);
  const url = (path: string): string => `rtsp://127.0.0.1:${ingest.port}/${path}`;
  return {
    dir,
    video,
    ingest,
    metrics,
    url,
    async client(path, device, more = {}) {
      const login = devices.find(({ id }) => id === device);
      const credentials = login && { username: login.id, password: login.password };
      const client = new RtspClient({ url: url(path), ...(credentials && { credentials }), ...more });
      t.after(() => client.close());
      await client.connect();
      return client;
    },
    async again() {
      await close();
      return openOn(dir, lives, t, devices, options);
    },
  };
}
