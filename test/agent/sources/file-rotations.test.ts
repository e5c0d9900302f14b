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
import { openBuffer, temporaryFolder } from "../buffer/buffer-fixture.ts";
import { sourceParts, stored } from "./source-parts.ts";

const SERVICES = ["web", "db", "mail"];

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
    const how = this.below(5);
    this.history.push(`rotate ${service} in way ${how}`);
    const dated = join(this.logs, `${service}-2026112${1_000 + ++this.#rotations}.log`);
    if (how === 0) await this.#cascade(path, false);
    else if (how === 1) await this.#cascade(path, true);
    else if (how === 2) await rename(path, dated);
    else {
      const copy = how === 3 ? dated : `${path}-2026112${1_000 + this.#rotations}`;
      await copyFile(path, copy);
      await truncate(path, 0);
    }
  }

  /** .2 → .3, .1 → .2, the log → .1; what was .1 is compressed, as `delaycompress` does. */
  async #cascade(path: string, compressed: boolean): Promise<void> {
    for (let i = 8; i >= 1; i--) {
      for (const ending of ["", ".gz"])
        await rename(`${path}.${i}${ending}`, `${path}.${i + 1}${ending}`).catch(() => {});
    }
    await rename(path, `${path}.1`);
    const second = await stat(`${path}.2`).catch(() => undefined);
    if (!compressed || second === undefined) return;
    await writeFile(`${path}.2.gz`, gzipSync(await readFile(`${path}.2`)));
    await utimes(`${path}.2.gz`, second.atime, second.mtime);
    await rm(`${path}.2`);
  }
}

async function begin(buffer: RecordBuffer, logs: string): Promise<FileTail> {
  const source = new FileTail({
    ...sourceParts(buffer),
    config: {
      type: "file",
      name: "logs",
      path: join(logs, "*.log"),
      maxFiles: 4,
      from: "start",
      format: "text",
      stream: "sensors",
      pollMs: 5,
      rotateWaitMs: 10,
    },
  });
  await source.start();
  return source;
}

async function live(t: TestContext, seed: number): Promise<void> {
  const folder = await temporaryFolder(t);
  const logs = join(folder, "logs");
  await mkdir(logs);
  const world = new World(logs, randomFrom(seed));
  let buffer = await openBuffer(join(folder, "buffer"));
  let source = await begin(buffer, logs);
  const total = (): number => [...world.written.values()].reduce((sum, one) => sum + one, 0);
  const caughtUp = async (): Promise<void> => {
    for (let tries = 0; buffer.usage().waitingRecords < total(); tries++) {
      assert.ok(
        tries < 2_000,
        `seed ${seed}: ${buffer.usage().waitingRecords} of ${total()}\n${world.history.join("\n")}`,
      );
      await pause(10);
    }
  };
  // What is rotated before it is seen for the first time is nobody's.
  for (const service of SERVICES) await world.write(service);
  await caughtUp();
  for (let step = 0; step < 25; step++) {
    const service = SERVICES[world.below(SERVICES.length)]!;
    const what = world.below(10);
    if (what < 5) await world.write(service);
    else if (what < 7) {
      await world.rotate(service);
      await world.write(service);
    } else if (what < 8) await caughtUp();
    else if (what < 9) await pause(world.below(60));
    else {
      world.history.push("restart");
      await source.close();
      await buffer.close();
      for (let i = world.below(4); i > 0; i--) {
        await world.write(service);
        await world.rotate(service);
        await world.write(service);
      }
      buffer = await openBuffer(join(folder, "buffer"));
      source = await begin(buffer, logs);
    }
    // Times of files tell their order, and no rotator rotates twice in one moment.
    await pause(12);
  }
  await caughtUp();
  await pause(100);
  await source.close();
  const seen = new Map<string, number[]>(SERVICES.map((name) => [name, []]));
  for (const { line } of await stored(buffer)) {
    const [service, number] = String(line).split(" ");
    seen.get(service!)!.push(Number(number));
  }
  const gaps = await stored(buffer, GAPS_STREAM);
  await buffer.close();
  for (const [service, count] of world.written) {
    const numbers = seen.get(service)!;
    const twice = numbers.filter((number, i) => numbers.indexOf(number) !== i);
    const said = `seed ${seed}, ${service}, twice ${twice.join(" ")}\n${world.history.join("\n")}`;
    assert.equal(new Set(numbers).size, count, `lost: ${said}`);
    assert.equal(numbers.length, count, `doubled: ${said}`);
  }
  assert.deepEqual(gaps, [], `seed ${seed}\n${world.history.join("\n")}`);
}

for (const seed of (process.env.SEEDS ?? "1,2,3,4,5,6").split(",").map(Number))
  test(`logs of several services, rotated in all ways, are stored whole, each line once: ${seed}`, (t) =>
    live(t, seed));
