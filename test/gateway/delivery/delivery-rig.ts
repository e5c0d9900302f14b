/** A real stream log in a folder of its own, and one delivery beside it. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { DeliveryConfig } from "../../../config/gateway-config.ts";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import type { Delivery } from "../../../gateway/delivery/delivery.ts";
import { openDelivery } from "../../../gateway/delivery/open-delivery.ts";
import { type LocalStreams, openLocalStreams } from "../../../gateway/streams/stores/local/local.ts";
import { pause } from "../../../runtime/backoff.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { spoilReads } from "../../support/spoilt-reads.ts";

export const STREAM = "sensors";
export const SHARDS = 3;

export interface Rig {
  readonly streams: LocalStreams;
  readonly delivery: Delivery;
  readonly out: string;
  readonly metrics: Metrics;
  close(): Promise<void>;
}

export interface RigOptions {
  readonly bufferBytes?: number;
  readonly bufferSeconds?: number;
  readonly clock?: Clock;
  readonly segmentBytes?: number;
  /** Name of the folder of the destination; `out` unless given. */
  readonly out?: string;
  /** The stream that is delivered; `STREAM` unless given. */
  readonly stream?: string;
  readonly lookEveryMs?: number;
  readonly onStep?: (step: CutStep) => void | Promise<void>;
}

export async function openRig(dir: string, options: RigOptions = {}): Promise<Rig> {
  const clock = options.clock ?? systemClock;
  const metrics = new Metrics();
  const streams = spoilReads(
    await openLocalStreams({
      dir: join(dir, "streams"),
      clock,
      log: silentLog,
      metrics,
      ...(options.segmentBytes !== undefined && { segmentBytes: options.segmentBytes }),
    }),
  );
  for (const name of new Set([STREAM, options.stream ?? STREAM])) {
    if (!streams.listStreams().includes(name)) {
      await streams.createStream({ name, shards: SHARDS, retentionHours: 24 });
    }
  }
  const out = join(dir, options.out ?? "out");
  const config: DeliveryConfig = {
    name: "archive",
    stream: options.stream ?? STREAM,
    bufferBytes: options.bufferBytes ?? 1_048_576,
    bufferSeconds: options.bufferSeconds ?? 0.1,
    destination: { type: "files", path: out, compression: "gzip" },
  };
  const delivery = await openDelivery({
    dir: join(dir, "delivery"),
    streams,
    deliveries: [config],
    clock,
    log: silentLog,
    metrics,
    ...(options.lookEveryMs !== undefined && { lookEveryMs: options.lookEveryMs }),
    ...(options.onStep && { onStep: (_: string, step: CutStep) => options.onStep?.(step) }),
  });
  const rig = {
    streams,
    delivery,
    out,
    metrics,
    close: async (): Promise<void> => {
      open.delete(rig);
      await delivery.close();
      await streams.close();
    },
  };
  open.add(rig);
  return rig;
}

const open = new Set<Rig>();

/** So that a test that fails leaves nothing running. */
export async function closeRigs(): Promise<void> {
  for (const rig of [...open]) await rig.close();
}

/** Path below the destination → bytes of the file, in the order of the cuts. */
export async function files(out: string): Promise<Map<string, Buffer>> {
  const names = await readdir(out, { recursive: true, withFileTypes: true }).catch(() => []);
  const found = new Map<string, Buffer>();
  const paths = names.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  for (const path of paths.sort((a, b) => (a.slice(-22) < b.slice(-22) ? -1 : 1))) {
    // An object in the making gets its name meanwhile.
    const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    if (bytes !== undefined) found.set(path.slice(out.length + 1), bytes);
  }
  return found;
}

/** The lines of all delivered objects, or of all error outputs. */
export async function lines(out: string, which: "delivered" | "failed" = "delivered"): Promise<string[]> {
  const all: string[] = [];
  for (const [name, bytes] of await files(out)) {
    if (name.startsWith("errors/") !== (which === "failed") || name.endsWith(".tmp")) continue;
    all.push(...gunzipSync(bytes).toString().split("\n").slice(0, -1));
  }
  return all;
}

/** Waits long: a cut syncs half a dozen times, and disks stall for seconds where others use them. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  maxMs = 120_000,
): Promise<void> {
  const end = performance.now() + maxMs;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited ${maxMs} ms in vain: ${what}`);
    await pause(10);
  }
}

/** `count` records over five keys, numbered within their key. */
export function numbered(from: number, count: number): { partitionKey: string; data: Buffer }[] {
  return Array.from({ length: count }, (_, i) => {
    const key = `key-${(from + i) % 5}`;
    const data = Buffer.from(JSON.stringify({ key, n: Math.floor((from + i) / 5) }));
    return { partitionKey: key, data };
  });
}

/** @throws when a key's numbers are not 0, 1, 2 … in this order */
export function countInOrder(delivered: readonly string[]): number {
  const next = new Map<string, number>();
  for (const line of delivered) {
    const { key, n } = JSON.parse(line) as { key: string; n: number };
    const expected = next.get(key) ?? 0;
    if (n !== expected) throw new Error(`${key}: ${n} came where ${expected} was expected`);
    next.set(key, n + 1);
  }
  return delivered.length;
}
