/**
 * Video: cameras' footage, written once, found by time, watched live.
 *
 *   ingest ─packets→ units → fMP4 fragments (synced, indexed) → persisted → agent may delete
 *                         └→ live viewers
 */
import type { Epoch, FrameSequence } from "../../protocol/frame.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

export interface CameraStatus {
  readonly camera: string;
  /** A publisher is connected and sends. */
  readonly live: boolean;
  readonly codec: string | undefined;
  readonly width: number | undefined;
  readonly height: number | undefined;
  readonly fragments: number;
  readonly storedBytes: number;
  /** Producer times, µs since 1970 UTC; undefined before the first fragment. */
  readonly oldestUs: number | undefined;
  readonly newestUs: number | undefined;
  readonly quarantined: number;
  /** Kept aside and never served; among the bytes, not among the fragments. */
  readonly damaged: number;
  readonly viewers: number;
}

/** One unit in the archive: a playable fMP4 file. */
export interface Fragment {
  readonly id: string;
  readonly camera: string;
  readonly epoch: Epoch;
  readonly sequence: FrameSequence;
  readonly producerUs: number;
  readonly durationUs: number;
  readonly bytes: number;
  readonly state: "whole" | "truncated" | "quarantined";
}

export interface PersistedRange {
  readonly epoch: Epoch;
  readonly first: FrameSequence;
  readonly last: FrameSequence;
}

/** What a viewer in a browser gets, in order: `init` once and again after every change of codec, then `media`. */
export interface LiveViewer {
  /** @param mimeType for MediaSource.addSourceBuffer, such as `video/mp4; codecs="avc1.42c01f"` */
  init(mimeType: string, segment: Uint8Array): void;
  /** A movie fragment (moof + mdat). @param producerUs of its first picture */
  media(segment: Uint8Array, producerUs: number): void;
  /** Bytes accepted but not yet sent; a viewer too far behind is skipped to the next key frame. */
  backlogBytes(): number;
}

/** Who watches the compatibility preview: MPEG-1 in MPEG-TS, as jsmpeg players read it. */
export interface PreviewViewer {
  data(chunk: Uint8Array): void;
  /** Bytes accepted but not yet sent. */
  backlogBytes(): number;
}

/** The compatibility previews of all cameras; one decoder and encoder runs for each that is watched. */
export interface CameraPreviews {
  /** The answer ends it. */
  watch(camera: string, viewer: PreviewViewer): () => void;
}

/** Hears what a feed holds in memory, whenever that changes; after its close until nothing is left. Says when that is too much. */
export interface FeedMemory {
  /**
   * @param openBytes of the unit under way
   * @param waitingBytes of units that wait for the disk
   */
  holds(openBytes: number, waitingBytes: number): void;
  /** Units that the feed cuts itself are to be short. */
  readonly isScarce: boolean;
}

/** One publisher's session. */
export interface CameraFeed {
  /** What `Range: clock=` said of the first picture, µs since 1970 UTC; before any packet. */
  startsAt(utcUs: number): void;
  packet(track: number, rtp: Buffer): void;
  /** Sender reports and the APP packets that bracket a unit. */
  rtcp(track: number, bytes: Buffer): void;
  /** What is on disk and indexed of this camera, for GET_PARAMETER `persisted`. */
  persisted(): PersistedRange[];
  /**
   * Bytes of this camera taken but not yet on disk, also those of publishers that have left. A publisher far ahead
   * of the disk should be read no further.
   */
  waitingBytes(): number;
  /** Resolves when all that was cut into units of this camera so far is on disk, or was given up. */
  drained(): Promise<void>;
  /** Resolves when all that was given is archived. Safe to call twice. */
  close(): Promise<void>;
}

/** Another device has a camera of this name. Units are known by epochs that anybody could name, so a camera is of one device. */
export class CameraTakenError extends HeadwaterError {
  constructor(camera: string, device: string) {
    super("VIDEO_CAMERA_TAKEN", {
      message: `${camera} is a camera of ${device}`,
      hint: `give each camera a name of its own; to let another device have this one: headwater-gateway devices give ${camera} DEVICE`,
    });
  }
}

/** Names of cameras are for whoever comes first: one device must not take those that others would use. */
export class TooManyOfDeviceError extends HeadwaterError {
  constructor(camera: string, device: string, cameras: number) {
    super("VIDEO_TOO_MANY_OF_DEVICE", {
      message: `${device} has ${cameras} cameras already, so ${camera} is not taken from it`,
      hint: `use the names that it has, or let it have a camera that is known: headwater-gateway devices give CAMERA ${device}`,
    });
  }
}

/** There is no such camera; nothing was changed. */
export class UnknownCameraError extends HeadwaterError {
  constructor(camera: string) {
    super("VIDEO_UNKNOWN_CAMERA", {
      message: `no camera is named ${camera}`,
      hint: "a name that nobody has needs no leave: the first device that publishes it has it",
    });
  }
}

/** Its device publishes it now, and would go on under a name that is no longer its own. */
export class CameraInUseError extends HeadwaterError {
  constructor(camera: string, device: string | undefined) {
    super("VIDEO_CAMERA_IN_USE", {
      message: `${camera} is published now${device === undefined ? "" : ` by ${device}`}`,
      hint: "stop that device's camera, or revoke the device, and say it again",
      retryable: true,
    });
  }
}

/** Whose cameras are whose, for the operator. */
export interface CameraOwners {
  /**
   * Makes a camera, with its archive, another device's. Resolves when that is on disk.
   * @throws UnknownCameraError, CameraInUseError
   */
  giveCamera(camera: string, device: string): Promise<void>;
}

export interface Video {
  start(): Promise<void>;
  close(): Promise<void>;
  /**
   * @param device whose camera it is, where that is known: from then on it is that device's alone
   * @throws CameraTakenError, TooManyOfDeviceError; and for a description without a track that can be stored
   */
  openFeed(camera: string, sdp: string, device?: string, memory?: FeedMemory): CameraFeed;
  cameras(): CameraStatus[];
  /** Fragments that overlap [fromUs, toUs), in order of time, at most `limit`. */
  fragments(camera: string, fromUs: number, toUs: number, limit: number): Promise<Fragment[]>;
  /** The fMP4 file of a fragment; undefined when it is no longer kept. */
  readFragment(camera: string, id: string): Promise<Buffer | undefined>;
  /** Begins with the newest key frame. The answer ends it. */
  watch(camera: string, viewer: LiveViewer): () => void;
}
