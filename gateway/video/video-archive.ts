/**
 * The video part: archives and live views of all cameras in one folder.
 *
 *   dir/format            what wrote this folder
 *   dir/index/            LevelDB; a damaged one is moved aside and made again from the files
 *   dir/cameras/<name>/   one folder an hour, one file a unit; `device` says whose camera it is
 */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { BadNameError, DEVICE_NAME } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { syncFolder, writeDurably } from "../../runtime/durable.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { DatabaseWriteError } from "../../runtime/synced-level.ts";
import { CameraArchive } from "./archive/camera-archive.ts";
import { FragmentIndex } from "./archive/fragment-index.ts";
import { VideoRetention } from "./archive/video-retention.ts";
import { UnitFeed } from "./camera-feed.ts";
import { LiveMemory } from "./live-memory.ts";
import { LiveView } from "./live-view.ts";
import {
  type CameraFeed,
  CameraInUseError,
  type CameraOwners,
  type CameraStatus,
  CameraTakenError,
  type FeedMemory,
  type Fragment,
  type LiveViewer,
  TooManyOfDeviceError,
  UnknownCameraError,
  type Video,
} from "./video.ts";
import { type VideoCounters, videoCounters } from "./video-counters.ts";

const FORMAT = "headwater-video 1\n";
/** Strangers on an open port must not fill the disk with folders. */
const MAX_CAMERAS = 256;
/** Of them those of one device. */
const MAX_CAMERAS_OF_DEVICE = 64;
/** A publisher that sends nothing for so long is not live. */
const SILENCE_MS = 10_000;
const DAMAGED_INDEX = "index.damaged-";
/** What LevelDB writes when it opens, at most. */
const OPEN_ROOM_BYTES = 8 * 1_048_576;

export interface VideoOptions {
  /** Made when absent. */
  readonly dir: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly retentionHours: number;
  /** The oldest footage of all cameras goes when more is stored. */
  readonly maxBytes: number;
  /** For tests; LevelDB in dir/index unless told. */
  readonly index?: FragmentIndex;
}

export class TooManyCamerasError extends HeadwaterError {
  constructor(camera: string) {
    super("VIDEO_TOO_MANY_CAMERAS", {
      message: `${camera} would be camera number ${MAX_CAMERAS + 1}`,
      hint: "remove folders of cameras that are no longer wanted from dataDir/video/cameras",
    });
  }
}

export class VideoFormatError extends HeadwaterError {
  constructor(dir: string, found: string) {
    super("VIDEO_FOLDER_FORMAT", {
      message: `${dir} was written as ${JSON.stringify(found.slice(0, 60))}, not as ${JSON.stringify(FORMAT)}`,
      hint: "start the version of the gateway that wrote it, or set another dataDir",
    });
  }
}

/** Constructed and started. @throws VideoFormatError */
export async function openVideo(options: VideoOptions): Promise<VideoArchive> {
  const video = new VideoArchive(options);
  await video.start();
  return video;
}

/** Who watches a camera that nobody has heard of yet. */
interface EarlyViewer {
  readonly camera: string;
  readonly viewer: LiveViewer;
  stop: (() => void) | undefined;
}

interface Camera {
  readonly archive: CameraArchive;
  readonly live: LiveView;
  /** The newest publisher comes last; it is the one that is shown. */
  readonly feeds: WatchedFeed[];
}

export class VideoArchive implements Video, CameraOwners {
  readonly #options: VideoOptions;
  readonly #log: Log;
  readonly #counters: VideoCounters;
  readonly #cameras = new Map<string, Camera>();
  readonly #liveMemory = new LiveMemory();
  readonly #earlyViewers = new Set<EarlyViewer>();
  readonly #retention: VideoRetention;
  #index: FragmentIndex;
  #started = false;
  #closing: Promise<void> | undefined;

  constructor(options: VideoOptions) {
    this.#options = options;
    this.#log = options.log.child({ part: "video" });
    this.#index = options.index ?? new FragmentIndex(join(options.dir, "index"));
    this.#counters = videoCounters(options.metrics);
    this.#retention = new VideoRetention({
      ...options,
      log: this.#log,
      counters: this.#counters,
      archives: () => [...this.#cameras.values()].map(({ archive }) => archive),
      compact: () => this.#index.compact(),
    });
    options.metrics.gauge(
      "headwater_video_stored_bytes",
      "Footage on disk",
      ["camera"],
      gaugeOf(this, "storedBytes"),
    );
    options.metrics.gauge(
      "headwater_video_fragments",
      "Fragments on disk",
      ["camera"],
      gaugeOf(this, "fragments"),
    );
    options.metrics.gauge(
      "headwater_video_damaged_fragments",
      "Damaged fragments that were set aside and wait for retention",
      ["camera"],
      gaugeOf(this, "damaged"),
    );
    options.metrics.gauge("headwater_video_viewers", "Live viewers", ["camera"], gaugeOf(this, "viewers"));
  }

  /** Safe to call twice. */
  async start(): Promise<void> {
    if (this.#started) return;
    this.#started = true;
    const { dir } = this.#options;
    await mkdir(join(dir, "cameras"), { recursive: true, mode: 0o700 });
    await syncFolder(dirname(dir));
    await this.#checkFormat();
    await this.#openIndex();
    const entries = await readdir(join(dir, "cameras"), { withFileTypes: true });
    for (const { name } of entries.filter((entry) => entry.isDirectory() && isCameraName(entry.name))) {
      const camera = this.#newCamera(name);
      this.#cameras.set(name, camera);
      await camera.archive.open();
    }
    this.#retention.start();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const cameras = [...this.#cameras.values()];
    await Promise.all(cameras.flatMap(({ feeds }) => [...feeds]).map((feed) => feed.close()));
    await this.#retention.close();
    await Promise.all(cameras.map(({ archive }) => archive.idle()));
    await this.#index.close();
  }

  openFeed(camera: string, sdp: string, device?: string, memory?: FeedMemory): CameraFeed {
    if (!isCameraName(camera)) throw new BadNameError("camera", camera);
    if (this.#closing !== undefined) {
      throw new HeadwaterError("VIDEO_CLOSED", { message: "the gateway is closing", retryable: true });
    }
    const known = this.#cameras.get(camera);
    if (known === undefined && this.#cameras.size >= MAX_CAMERAS) throw new TooManyCamerasError(camera);
    const entry = known ?? this.#newCamera(camera);
    const owner = entry.archive.device;
    if (owner !== undefined && owner !== device) throw new CameraTakenError(camera, owner);
    if (owner === undefined && device !== undefined) this.#checkRoom(camera, device);
    const feed: WatchedFeed = new WatchedFeed(
      {
        archive: entry.archive,
        live: entry.live,
        sdp,
        ownEpoch: randomBytes(8).readBigUInt64BE(),
        clock: this.#options.clock,
        log: this.#log,
        counters: this.#counters,
        memory,
        isShown: () => entry.feeds.at(-1) === feed,
      },
      () => {
        entry.feeds.splice(entry.feeds.indexOf(feed), 1);
      },
    );
    entry.feeds.push(feed);
    // Only now, as a description that cannot be used must leave no folder behind.
    if (known === undefined) {
      this.#cameras.set(camera, entry);
      this.#joinEarly(camera, entry);
      entry.archive.open().catch((error: unknown) => {
        this.#log.error({ camera, error: describeError(error) }, "the camera's folder cannot be used");
      });
    }
    if (device !== undefined) entry.archive.claim(device);
    return feed;
  }

  /** How many the device has already does not matter: the operator has said so. */
  async giveCamera(camera: string, device: string): Promise<void> {
    const entry = this.#cameras.get(camera);
    if (entry === undefined) throw new UnknownCameraError(camera);
    const { archive, feeds } = entry;
    const before = archive.device;
    if (feeds.length > 0 && before !== device) throw new CameraInUseError(camera, before);
    await archive.give(device);
    this.#log.info({ camera, device, before }, "the camera is another device's now");
  }

  /** Those that the device has stay its own, however many. @throws TooManyOfDeviceError */
  #checkRoom(camera: string, device: string): void {
    let count = 0;
    for (const { archive } of this.#cameras.values()) if (archive.device === device) count++;
    if (count >= MAX_CAMERAS_OF_DEVICE) throw new TooManyOfDeviceError(camera, device, count);
  }

  cameras(): CameraStatus[] {
    const nowMs = this.#options.clock.monotonicMs();
    const names = [...this.#cameras.keys()].sort();
    return names.map((camera) => {
      const { archive, live, feeds } = this.#cameras.get(camera)!;
      const { format } = live;
      return {
        camera,
        live: feeds.some((feed) => nowMs - feed.lastPacketMs < SILENCE_MS),
        codec: format?.codec,
        width: format?.width,
        height: format?.height,
        fragments: archive.totals.rows,
        storedBytes: archive.totals.bytes,
        oldestUs: archive.totals.oldestUs,
        newestUs: archive.totals.newestUs,
        quarantined: archive.totals.quarantined,
        damaged: archive.totals.damaged,
        viewers: live.viewers,
      };
    });
  }

  async fragments(camera: string, fromUs: number, toUs: number, limit: number): Promise<Fragment[]> {
    return (await this.#cameras.get(camera)?.archive.fragments(fromUs, toUs, limit)) ?? [];
  }

  async readFragment(camera: string, id: string): Promise<Buffer | undefined> {
    return this.#cameras.get(camera)?.archive.read(id);
  }

  /** Of a camera that nobody has heard of yet, pictures come once it publishes. */
  watch(camera: string, viewer: LiveViewer): () => void {
    const entry = this.#cameras.get(camera);
    if (entry !== undefined) return entry.live.watch(viewer);
    const early: EarlyViewer = { camera, viewer, stop: undefined };
    this.#earlyViewers.add(early);
    return () => {
      this.#earlyViewers.delete(early);
      early.stop?.();
    };
  }

  #joinEarly(camera: string, { live }: Camera): void {
    for (const early of this.#earlyViewers) {
      if (early.camera !== camera) continue;
      this.#earlyViewers.delete(early);
      early.stop = live.watch(early.viewer);
    }
  }

  /** One round of retention; it also happens by itself. Resolves when it is done. */
  enforceRetention(): Promise<void> {
    return this.#retention.enforce();
  }

  #newCamera(camera: string): Camera {
    const { dir, clock } = this.#options;
    return {
      archive: new CameraArchive(camera, join(dir, "cameras", camera), this.#index, clock, this.#log),
      live: new LiveView(this.#log.child({ camera }), this.#liveMemory),
      feeds: [],
    };
  }

  async #checkFormat(): Promise<void> {
    const path = join(this.#options.dir, "format");
    const found = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (found === undefined) await writeDurably(path, FORMAT);
    else if (found !== FORMAT) throw new VideoFormatError(this.#options.dir, found);
  }

  /** LevelDB's damage costs time only: the files say all that the index does. */
  async #openIndex(): Promise<void> {
    try {
      await this.#index.open();
    } catch (error) {
      const cause = (error as { cause?: { code?: string } }).cause;
      if (cause?.code === "LEVEL_LOCKED" || this.#options.index !== undefined) throw error;
      const { dir } = this.#options;
      const { bavail, bsize } = await statfs(dir);
      // An index on a full disk is not damaged.
      if (bavail * bsize < OPEN_ROOM_BYTES) throw new DatabaseWriteError(join(dir, "index"), error);
      // One is enough for whoever wants to look at it.
      for (const name of await readdir(dir)) {
        if (name.startsWith(DAMAGED_INDEX)) await rm(join(dir, name), { recursive: true, force: true });
      }
      const aside = join(dir, `${DAMAGED_INDEX}${Math.trunc(this.#options.clock.nowUs())}`);
      this.#log.warn({ aside, error: describeError(cause ?? error) }, "the index is damaged and made again");
      await rename(join(dir, "index"), aside);
      this.#index = new FragmentIndex(join(dir, "index"));
      await this.#index.open();
    }
  }
}

/** A feed that its camera can see and that leaves it when it closes. */
class WatchedFeed extends UnitFeed {
  lastPacketMs: number;
  readonly #clock: Clock;
  #leave: (() => void) | undefined;

  constructor(parts: ConstructorParameters<typeof UnitFeed>[0], leave: () => void) {
    super(parts);
    this.#clock = parts.clock;
    this.#leave = leave;
    this.lastPacketMs = parts.clock.monotonicMs();
  }

  override packet(track: number, rtp: Buffer): void {
    this.lastPacketMs = this.#clock.monotonicMs();
    super.packet(track, rtp);
  }

  override async close(): Promise<void> {
    // The last picture is shown yet; then the publisher before this one is.
    const done = super.close();
    this.#leave?.();
    this.#leave = undefined;
    await done;
  }
}

function isCameraName(name: string): boolean {
  return DEVICE_NAME.test(name) && !name.startsWith(".");
}

function gaugeOf(video: Video, field: "storedBytes" | "fragments" | "damaged" | "viewers") {
  return function collect(this: {
    reset(): void;
    set(labels: { camera: string }, value: number): void;
  }): void {
    this.reset();
    for (const status of video.cameras()) this.set({ camera: status.camera }, status[field]);
  };
}
