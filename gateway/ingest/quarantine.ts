/**
 * Where invalid publishes are kept, so that they can be looked at and do not come again: NDJSON,
 * two files of at most `maxBytes` each, the older one dropped when the newer is full.
 */
import { type FileHandle, mkdir, open, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../../runtime/durable.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { QuarantineStatus } from "./ingest.ts";

/** A hostile client shall not fill the log as well: further ones are counted, in the next line and the metric. */
const LINES_A_MINUTE = 10;
const MINUTE_US = 60_000_000;

export interface QuarantinedPublish {
  readonly timeUs: number;
  readonly client: string;
  readonly topic: string;
  readonly reason: string;
  readonly payload: Uint8Array;
}

export class Quarantine {
  readonly #dir: string;
  readonly #maxBytes: number;
  readonly #log: Log;
  readonly #counter;
  #file: FileHandle | undefined;
  #closed = false;
  #bytes = 0;
  #olderBytes = 0;
  #publishes = 0;
  #lastReason: string | undefined;
  #minuteUs = Number.NEGATIVE_INFINITY;
  #linesInMinute = 0;
  #unsaid = 0;
  /** Writes follow one another; group commit is not worth it here. */
  #queue: Promise<void> = Promise.resolve();

  constructor(dir: string, log: Log, metrics: Metrics, maxBytes = 32 * 1_048_576) {
    this.#dir = dir;
    this.#log = log;
    this.#maxBytes = maxBytes;
    this.#counter = metrics.counter(
      "headwater_ingest_quarantined_total",
      "Publishes that were kept aside as invalid",
    );
  }

  async start(): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    this.#olderBytes = (await stat(this.#path("older")).catch(() => undefined))?.size ?? 0;
    await this.#open("a");
  }

  /** Resolves when the publish is on disk, so that it may be acknowledged. Its payload is copied in the call. */
  keep(publish: QuarantinedPublish): Promise<void> {
    const copy = { ...publish, payload: Buffer.from(publish.payload) };
    const kept = this.#queue.then(() => this.#write(copy));
    this.#queue = kept.catch(() => {});
    return kept;
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
    await this.#queue;
    await this.#file?.close();
    this.#file = undefined;
  }

  async #write(publish: QuarantinedPublish): Promise<void> {
    const { client, topic, reason, payload } = publish;
    const line = `${JSON.stringify({
      time: new Date(publish.timeUs / 1000).toISOString(),
      client,
      topic: topic.slice(0, 1024),
      reason,
      payload: Buffer.from(payload).toString("base64"),
    })}\n`;
    if (this.#closed) throw new Error("the quarantine is closed");
    // A full disk may have kept an earlier rotation from opening a file.
    const file = this.#file ?? (await this.#open("a"));
    const full = this.#bytes > 0 && this.#bytes + line.length > this.#maxBytes;
    await this.#append(full ? await this.#rotate() : file, Buffer.from(line));
    this.#publishes++;
    this.#lastReason = reason;
    this.#counter.inc();
    this.#say(publish);
  }

  #say({ timeUs, client, topic, reason, payload }: QuarantinedPublish): void {
    // The clock may have been set back, too.
    if (Math.abs(timeUs - this.#minuteUs) >= MINUTE_US) {
      this.#minuteUs = timeUs;
      this.#linesInMinute = 0;
    }
    if (this.#linesInMinute++ >= LINES_A_MINUTE) {
      this.#unsaid++;
      return;
    }
    const unsaid = this.#unsaid;
    this.#unsaid = 0;
    this.#log.warn(
      { client, topic: topic.slice(0, 200), reason, bytes: payload.length, ...(unsaid > 0 && { unsaid }) },
      "publish quarantined",
    );
  }

  /** What a full disk took of a line is cut off again, so that the next one stands by itself. */
  async #append(file: FileHandle, line: Buffer): Promise<void> {
    try {
      await file.appendFile(line);
      await file.datasync();
    } catch (error) {
      await file.truncate(this.#bytes).catch(() => {});
      throw error;
    }
    this.#bytes += line.length;
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

  async #open(flags: "a" | "w"): Promise<FileHandle> {
    const file = await open(this.#path("newer"), flags, 0o600);
    try {
      this.#bytes = (await file.stat()).size;
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
