/** Who the devices are, whether a password is theirs, and what is known of each. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { StatusMessage } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { DeviceStatus } from "./ingest.ts";

/** Plain clients may call themselves anything; what is remembered of them is bounded. */
const MAX_REMEMBERED = 10_000;

interface Counts {
  connections: number;
  lastSeenMs: number;
  frames: number;
  records: number;
  duplicateFrames: number;
  missedFrames: number;
  status: StatusMessage | undefined;
  /** The epoch that sends now, and its last frame; what is between two frames never came. */
  epoch: bigint | undefined;
  lastSequence: bigint;
}

export class DeviceDirectory {
  readonly #clock: Clock;
  readonly #passwords: ReadonlyMap<string, Buffer>;
  readonly #known = new Map<string, Counts>();

  constructor(devices: readonly { id: string; password: string }[], clock: Clock) {
    this.#clock = clock;
    this.#passwords = new Map(devices.map((device) => [device.id, digest(device.password)]));
  }

  /** False when devices are configured: then nobody comes in without being one of them. */
  get open(): boolean {
    return this.#passwords.size === 0;
  }

  /** Takes the same time for a wrong name as for a wrong password. */
  admits(name: string | undefined, password: Uint8Array | undefined): boolean {
    if (this.open) return true;
    const expected = this.#passwords.get(name ?? "");
    const matches = timingSafeEqual(expected ?? Buffer.alloc(32), digest(password ?? ""));
    return matches && expected !== undefined;
  }

  connected(device: string): void {
    this.#counts(device).connections++;
  }

  disconnected(device: string): void {
    const counts = this.#counts(device);
    counts.connections = Math.max(0, counts.connections - 1);
  }

  /** Counts a frame, and the sequences between it and the one before. */
  frame(
    device: string,
    epoch: bigint,
    sequence: bigint,
    records: number,
    outcome: "stored" | "duplicate",
  ): void {
    const counts = this.#counts(device);
    if (outcome === "duplicate") {
      counts.duplicateFrames++;
      return;
    }
    if (counts.epoch !== epoch) counts.lastSequence = sequence;
    else if (sequence > counts.lastSequence) {
      counts.missedFrames += Number(sequence - counts.lastSequence - 1n);
      counts.lastSequence = sequence;
      // One stream stored it later than another the one behind it.
    } else if (counts.missedFrames > 0) counts.missedFrames--;
    counts.epoch = epoch;
    counts.frames++;
    counts.records += records;
  }

  records(device: string, records: number): void {
    this.#counts(device).records += records;
  }

  status(device: string, status: StatusMessage): void {
    this.#counts(device).status = status;
  }

  list(): DeviceStatus[] {
    return [...this.#known]
      .map(([device, counts]) => ({
        device,
        connected: counts.connections > 0,
        lastSeenMs: counts.lastSeenMs,
        frames: counts.frames,
        records: counts.records,
        duplicateFrames: counts.duplicateFrames,
        missedFrames: counts.missedFrames,
        ...(counts.status && { status: counts.status }),
      }))
      .sort((a, b) => (a.device < b.device ? -1 : 1));
  }

  #counts(device: string): Counts {
    let counts = this.#known.get(device);
    if (counts === undefined) {
      if (this.#known.size >= MAX_REMEMBERED) this.#forgetOne();
      counts = {
        connections: 0,
        lastSeenMs: 0,
        frames: 0,
        records: 0,
        duplicateFrames: 0,
        missedFrames: 0,
        status: undefined,
        epoch: undefined,
        lastSequence: 0n,
      };
      this.#known.set(device, counts);
    }
    counts.lastSeenMs = this.#clock.nowUs() / 1000;
    return counts;
  }

  #forgetOne(): void {
    for (const [device, counts] of this.#known) {
      if (counts.connections > 0) continue;
      this.#known.delete(device);
      return;
    }
  }
}

/** Equal lengths, so that the comparison says nothing of the password's. */
function digest(password: string | Uint8Array): Buffer {
  return createHash("sha256").update(password).digest();
}
