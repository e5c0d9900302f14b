/**
 * Services that write logs, a rotator that does whatever rotators do, and a source that is stopped and
 * begun again meanwhile: each line is stored once, and those of a service in their order.
 */
import assert from "node:assert/strict";
import {
  appendFile,
  copyFile,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import { GAPS_STREAM } from "../../../protocol/topics.ts";
import { pause } from "../../../runtime/backoff.ts";
import { randomFrom } from "../../support/ordeal.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, tailConfig, until } from "./source-parts.ts";

const SERVICES = ["web", "db", "mail"];
const STEPS = 30;
/** Far more than it takes. */
const CATCH_UP_MS = 120_000;

class World {
  readonly logs: string;
  readonly written = new Map<string, number>(SERVICES.map((name) => [name, 0]));
  readonly history: string[] = [];
  readonly #random: () => number;
  #rotations = 0;

  constructor(logs: string, random: () => number) {
    this.logs = logs;
    this.#random = random;
  }

  below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  path(service: string): string {
    return join(this.logs, `${service}.log`);
  }

  async write(service: string): Promise<void> {
    const from = this.written.get(service)!;
    const count = 6 + this.below(40);
    const lines = Array.from(
      { length: count },
      (_, i) => `${service} ${from + i} ${"y".repeat(60 + ((from + i) % 7))}\n`,
    );
    await appendFile(this.path(service), lines.join(""));
    this.written.set(service, from + count);
    this.history.push(`write ${service} to ${from + count}`);
  }

  async rotate(service: string): Promise<void> {
    const path = this.path(service);
    if ((await stat(path).catch(() => undefined)) === undefined) return;
    const how = this.below(6);
    this.history.push(`rotate ${service} in way ${how}`);
    const dated = join(this.logs, `${service}-2026112${1_000 + ++this.#rotations}.log`);
    if (how === 0) await this.#cascade(path, false);
    else if (how === 1) await this.#cascade(path, true);
    else if (how === 2) await rename(path, dated);
    else {
      const copy = how === 3 ? dated : `${path}-2026112${1_000 + this.#rotations}`;
      await copyFile(path, copy);
      await truncate(path, 0);
      if (how === 5) await compress(copy);
    }
    // Times of files tell their order, and no rotator rotates twice in one moment.
    await pause(12);
  }

  /** .2 → .3, .1 → .2, the log → .1; what was .1 is compressed, as `delaycompress` does. */
  async #cascade(path: string, compressed: boolean): Promise<void> {
    for (let i = 8; i >= 1; i--) {
      for (const ending of ["", ".gz"])
        await rename(`${path}.${i}${ending}`, `${path}.${i + 1}${ending}`).catch(() => {});
    }
    await rename(path, `${path}.1`);
    if (compressed) await compress(`${path}.2`);
  }
}

/** As `gzip` does: the time of the last write stays. */
async function compress(path: string): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined) return;
  await writeFile(`${path}.gz`, gzipSync(await readFile(path)));
  await utimes(`${path}.gz`, stats.atime, stats.mtime);
  await rm(path);
}

async function begin(buffer: RecordBuffer, logs: string): Promise<FileTail> {
  const source = new FileTail({
    ...sourceParts(buffer),
    config: tailConfig(join(logs, "*.log"), { name: "logs", maxFiles: 4, pollMs: 5, rotateWaitMs: 10 }),
  });
  await source.start();
  return source;
}

interface Reader {
  readonly buffer: RecordBuffer;
  readonly source: FileTail;
  close(): Promise<void>;
}

async function reader(t: TestContext, folder: string, logs: string): Promise<Reader> {
  const buffer = await openBuffer(join(folder, "buffer"));
  const source = await begin(buffer, logs);
  const close = async (): Promise<void> => {
    await source.close();
    await buffer.close();
  };
  t.after(close);
  return { buffer, source, close };
}

/** Of each service its lines, in the order in which they were stored. */
async function numbers(buffer: RecordBuffer): Promise<Map<string, number[]>> {
  const seen = new Map<string, number[]>(SERVICES.map((name) => [name, []]));
  for (const { line } of await stored(buffer)) {
    const [service, number] = String(line).split(" ");
    seen.get(service!)!.push(Number(number));
  }
  return seen;
}

async function caughtUp({ buffer }: Reader, world: World): Promise<void> {
  const total = [...world.written.values()].reduce((sum, one) => sum + one, 0);
  const giveUp = AbortSignal.timeout(CATCH_UP_MS);
  await until(() => giveUp.aborted || buffer.usage().waitingRecords >= total);
  if (!giveUp.aborted) return;
  const has = [...(await numbers(buffer))].map(([service, { length }]) => `${service} ${length}`);
  assert.fail(`of ${total} there are ${has.join(", ")}\n${world.history.join("\n")}`);
}

async function live(t: TestContext, seed: number): Promise<void> {
  const folder = await temporaryFolder(t);
  const logs = join(folder, "logs");
  await mkdir(logs);
  const world = new World(logs, randomFrom(seed));
  let now = await reader(t, folder, logs);
  const restart = async (meanwhile: () => Promise<void>): Promise<void> => {
    world.history.push("restart");
    await now.close();
    await meanwhile();
    now = await reader(t, folder, logs);
  };
  // What is rotated before it is seen for the first time is nobody's.
  for (const service of SERVICES) await world.write(service);
  await caughtUp(now, world);
  for (let step = 0; step < STEPS; step++) {
    const service = SERVICES[world.below(SERVICES.length)]!;
    const what = world.below(10);
    if (what < 5) await world.write(service);
    else if (what < 7) {
      await world.rotate(service);
      // Else there is no new file for a while, or an empty one.
      if (world.below(2) === 0) await world.write(service);
    } else if (what < 8) await caughtUp(now, world);
    else if (what < 9) await pause(world.below(60));
    else
      await restart(async () => {
        for (let i = world.below(4); i > 0; i--) {
          await world.write(service);
          await world.rotate(service);
          await world.write(service);
        }
      });
  }
  await caughtUp(now, world);
  // What would be read twice would be so by now.
  await restart(async () => {});
  for (const service of SERVICES) await world.write(service);
  await caughtUp(now, world);
  const seen = await numbers(now.buffer);
  for (const [service, count] of world.written) {
    const all = Array.from({ length: count }, (_, i) => i);
    assert.deepEqual(seen.get(service), all, `${service}\n${world.history.join("\n")}`);
  }
  assert.deepEqual(await stored(now.buffer, GAPS_STREAM), [], world.history.join("\n"));
}

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8])
  test(`logs of several services, rotated in all ways, are stored whole, each line once: ${seed}`, (t) =>
    live(t, seed));
