/**
 * Where invalid publishes are kept, so that they can be looked at and do not come again: NDJSON,
 * two files of at most `maxBytes` each, the older one dropped when the newer is full.
 */
import { type FileHandle, mkdir, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../runtime/durable.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import type { QuarantineStatus } from "./ingest.ts";

/** What may go to the disk at once. */
const MAX_GROUP_BYTES = 1_048_576;
const MAX_TOPIC_CHARACTERS = 1_024;
/** A frame names its stream in up to 65,535 bytes, and the reason names the stream. */
const MAX_REASON_CHARACTERS = 500;
const NEWLINE = 0x0a;

export interface QuarantinedPublish {
  readonly timeUs: number;
  readonly client: string;
  readonly topic: string;
  readonly reason: string;
  readonly payload: Uint8Array;
}

/** One that is not on disk yet. */
interface Waiting {
  readonly line: Buffer;
  readonly publish: QuarantinedPublish;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

export class Quarantine {
  readonly #dir: string;
  readonly #maxBytes: number;
  readonly #log: SparingLog;
  readonly #counter;
  #file: FileHandle | undefined;
  #closed = false;
  #bytes = 0;
  /** The file ends within a line, as a crash leaves it. */
  #isTorn = false;
  #olderBytes = 0;
  #publishes = 0;
  #lastReason: string | undefined;
  /** What comes while the disk is at work goes to it together: who sends much must not keep others waiting. */
  #waiting: Waiting[] = [];
  #draining: Promise<void> | undefined;

  constructor(dir: string, log: Log, metrics: Metrics, maxBytes = 32 * 1_048_576) {
    this.#dir = dir;
    this.#log = new SparingLog(log);
    this.#maxBytes = maxBytes;
    this.#counter = metrics.counter(
      "headwater_ingest_quarantined_total",
      "Publishes that were kept aside as invalid",
    );
  }

  async start(): Promise<void> {
    await this.#begin();
  }

  /** Resolves when the publish is on disk, so that it may be acknowledged. Its payload is read in the call only. */
  keep(publish: QuarantinedPublish): Promise<void> {
    return new Promise((done, failed) => {
      const topic = publish.topic.slice(0, MAX_TOPIC_CHARACTERS);
      const reason = publish.reason.slice(0, MAX_REASON_CHARACTERS);
      const kept = { ...publish, topic, reason };
      this.#waiting.push({ line: lineOf(kept), publish: kept, done, failed });
      this.#draining ??= this.#drain();
    });
  }

  status(): QuarantineStatus {
    return {
      publishes: this.#publishes,
      keptBytes: this.#bytes + this.#olderBytes,
      ...(this.#lastReason !== undefined && { lastReason: this.#lastReason }),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#draining;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const { group, lines } = this.#nextGroup();
      try {
        await this.#write(lines);
      } catch (error) {
        for (const { failed } of group) failed(error);
        continue;
      }
      for (const { publish, done } of group) {
        this.#kept(publish);
        done();
      }
    }
    // Within the same step: whoever comes from here on has to start the next one.
    this.#draining = undefined;
  }

  /** The oldest, and those behind it that fit into one write and one file. */
  #nextGroup(): { readonly group: readonly Waiting[]; readonly lines: Buffer } {
    const limit = Math.min(MAX_GROUP_BYTES, this.#maxBytes);
    const lines: Buffer[] = [];
    let bytes = 0;
    for (const { line } of this.#waiting) {
      if (lines.length > 0 && bytes + line.length > limit) break;
      lines.push(line);
      bytes += line.length;
    }
    return { group: this.#waiting.splice(0, lines.length), lines: Buffer.concat(lines) };
  }

  async #write(lines: Buffer): Promise<void> {
    if (this.#closed) throw new Error("the quarantine is closed");
    const file = await this.#current();
    const full = this.#bytes > 0 && this.#bytes + lines.length > this.#maxBytes;
    await this.#append(full ? await this.#rotate() : file, lines);
  }

  async #begin(): Promise<FileHandle> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    this.#olderBytes = (await stat(this.#path("older")).catch(() => undefined))?.size ?? 0;
    return this.#open("a+");
  }

  /**
   * Whoever has looked at what is kept may have removed or moved it, folder and all: what came from then on would be
   * acknowledged, and be nowhere. A full disk may have kept an earlier rotation from opening a file.
   */
  async #current(): Promise<FileHandle> {
    const file = this.#file;
    if (file === undefined) return this.#begin();
    const named = await stat(this.#path("newer")).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    if (named?.ino === (await file.stat()).ino) return file;
    this.#file = undefined;
    await file.close();
    return this.#begin();
  }

  #kept({ timeUs, client, topic, reason, payload }: QuarantinedPublish): void {
    this.#publishes++;
    this.#lastReason = reason;
    this.#counter.inc();
    const fields = { client, topic: topic.slice(0, 200), reason, bytes: payload.length };
    this.#log.warn(timeUs, fields, "publish quarantined");
  }

  /** What a full disk took of a line is cut off again, so that the next one stands by itself. */
  async #append(file: FileHandle, lines: Buffer): Promise<void> {
    const bytes = this.#isTorn ? Buffer.concat([Buffer.from("\n"), lines]) : lines;
    try {
      await file.appendFile(bytes);
      await file.datasync();
    } catch (error) {
      await file.truncate(this.#bytes).catch(() => {
        // Opened anew, it is looked at where it ends.
        this.#file = undefined;
        return file.close().catch(() => {});
      });
      throw error;
    }
    this.#isTorn = false;
    this.#bytes += bytes.length;
  }

  async #rotate(): Promise<FileHandle> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
    // A crash here leaves only the older file; the next start makes a new one.
    await rename(this.#path("newer"), this.#path("older"));
    this.#olderBytes = this.#bytes;
    return this.#open("w");
  }

  async #open(flags: "a+" | "w"): Promise<FileHandle> {
    const file = await open(this.#path("newer"), flags, 0o600);
    try {
      this.#bytes = (await file.stat()).size;
      this.#isTorn = this.#bytes > 0 && (await lastByte(file, this.#bytes)) !== NEWLINE;
      await syncFolder(this.#dir);
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    return file;
  }

  #path(age: "newer" | "older"): string {
    return join(this.#dir, age === "newer" ? "publishes.ndjson" : "publishes.1.ndjson");
  }
}

function lineOf({ timeUs, client, topic, reason, payload }: QuarantinedPublish): Buffer {
  const time = new Date(timeUs / 1000).toISOString();
  const text = Buffer.from(payload).toString("base64");
  return Buffer.from(`${JSON.stringify({ time, client, topic, reason, payload: text })}\n`);
}

async function lastByte(file: FileHandle, bytes: number): Promise<number | undefined> {
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, bytes - 1);
  return buffer[0];
}
