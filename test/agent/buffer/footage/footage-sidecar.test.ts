import assert from "node:assert/strict";
import { access, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import {
  FootageVersionError,
  readSidecar,
  type Sidecar,
} from "../../../../agent/buffer/footage/footage-sidecar.ts";
import { openLevelFootageBuffer } from "../../../../agent/buffer/footage/level-footage-buffer.ts";
import type { FootageBuffer, FootageGap, UnitPlace } from "../../../../agent/buffer/footage-buffer.ts";
import { systemClock } from "../../../../runtime/clock.ts";
import { crc32c } from "../../../../runtime/crc32c.ts";
import { type LogFields, silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { removeFolder } from "../../../support/remove-folder.ts";
import { madeUnit } from "./made-unit.ts";

const UNITS = 5;

interface Told {
  readonly gaps: FootageGap[];
  readonly errors: LogFields[];
  readonly metrics: Metrics;
}

async function open(dir: string): Promise<Told & { readonly buffer: FootageBuffer }> {
  const told: Told = { gaps: [], errors: [], metrics: new Metrics() };
  const buffer = await openLevelFootageBuffer({
    ...{ dir, clock: systemClock, metrics: told.metrics, maxBytes: 1 << 28 },
    log: { ...silentLog, error: (fields) => void told.errors.push(fields) },
    onGap: (gap) => told.gaps.push(gap),
  });
  return { ...told, buffer };
}

/** A closed buffer of five units, and its sidecar. */
async function filled(t: TestContext): Promise<{ dir: string; file: string; bytes: Buffer }> {
  const dir = await mkdtemp(join(tmpdir(), "hw-footage-"));
  t.after(() => removeFolder(dir));
  const { buffer } = await open(dir);
  for (let number = 1; number <= UNITS; number++) await buffer.append(madeUnit("yard", number, 2_000));
  await buffer.close();
  const file = join(dir, "footage.json");
  return { dir, file, bytes: await readFile(file) };
}

async function sequences(buffer: FootageBuffer): Promise<number[]> {
  const found: number[] = [];
  let after: UnitPlace | undefined;
  for (;;) {
    const unit = await buffer.read("yard", after);
    if (unit === undefined) return found;
    found.push(Number(unit.sequence));
    after = unit;
  }
}

const sidecarsDamaged = async (metrics: Metrics): Promise<number | undefined> =>
  (await metrics.counter("headwater_agent_footage_sidecar_damaged_total", "damaged").get()).values[0]?.value;

/** As a file of version 1 was. */
function unchecked(sidecar: Buffer): { version: number; waiting: { last: number; toUs: number }[] } {
  return { ...JSON.parse(sidecar.toString().split("\n")[0]!), version: 1 };
}

test("each changed byte of the sidecar is noticed, and each cut", async (t) => {
  const { file, bytes } = await filled(t);
  assert.equal(((await readSidecar(file)) as Sidecar).waiting[0]!.last, BigInt(UNITS));
  for (let at = 0; at < bytes.length; at++) {
    for (const flip of [1, 2, 4, 8, 16, 32, 64, 128, 255]) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= flip;
      await writeFile(file, changed);
      assert.equal(await readSidecar(file), "damaged", `byte ${at}, flipped by ${flip}`);
    }
    await writeFile(file, bytes.subarray(0, at));
    assert.equal(await readSidecar(file), "damaged", `cut at byte ${at}`);
  }
});

test("with a damaged sidecar all footage that is found is sent, and the damage is told, counted and kept", async (t) => {
  const { dir, file, bytes } = await filled(t);
  // Still good JSON: it would say that a unit more must be there, which would be told as a gap.
  const changed = Buffer.from(bytes);
  changed[bytes.indexOf('"last":') + 7]! ^= 2;
  await writeFile(file, changed);
  const first = await open(dir);
  assert.deepEqual(await sequences(first.buffer), [1, 2, 3, 4, 5]);
  assert.deepEqual(first.gaps, []);
  assert.match(String(first.errors[0]?.error), /BUFFER_DAMAGED.*checksum/);
  assert.equal(await sidecarsDamaged(first.metrics), 1);
  assert.deepEqual(await readFile(`${file}.damaged`), changed);
  const made = (await readSidecar(file)) as Sidecar;
  assert.deepEqual(
    made.waiting.map(({ first, last }) => [first, last]),
    [[1n, BigInt(UNITS)]],
  );
  await first.buffer.close();
  const second = await open(dir);
  assert.deepEqual(second.errors, []);
  assert.equal(await sidecarsDamaged(second.metrics), 0);
  await second.buffer.close();
});

test("a sidecar of version 1, without a checksum, is read once and written with one", async (t) => {
  const { dir, file, bytes } = await filled(t);
  const former = unchecked(bytes);
  former.waiting[0]!.last += 2;
  await writeFile(file, JSON.stringify(former));
  const { buffer, gaps, errors } = await open(dir);
  assert.match(gaps[0]!.reason, /^2 units/);
  assert.deepEqual(errors, []);
  await buffer.close();
  assert.match(await readFile(file, "utf8"), /^\{"version":2,.*\}\n[0-9a-f]{8}\n$/);
  await assert.rejects(access(`${file}.damaged`), { code: "ENOENT" });
});

test("a sidecar of a later version is refused, and left as it is", async (t) => {
  const { dir, file } = await filled(t);
  const line = '{"version":3}';
  const text = `${line}\n${crc32c(Buffer.from(line)).toString(16).padStart(8, "0")}\n`;
  await writeFile(file, text);
  await assert.rejects(open(dir), FootageVersionError);
  assert.equal(await readFile(file, "utf8"), text);
});
