/** What is rotated in unusual ways, and what is lost: told once as a gap, and nothing else with it. */
import assert from "node:assert/strict";
import {
  appendFile,
  copyFile,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { FileTail } from "../../../agent/sources/file-tail.ts";
import type { FileSourceConfig } from "../../../config/source-config.ts";
import { GAPS_STREAM } from "../../../protocol/topics.ts";
import { pause } from "../../../runtime/backoff.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, tailConfig, until } from "./source-parts.ts";

/** Times of files tell their order. */
const TICK_MS = 12;

interface Rig {
  readonly logs: string;
  readonly buffer: RecordBuffer;
  /** All that is stored, in order, once there are so many. */
  lines(count: number): Promise<string[]>;
  gaps(): Promise<string[]>;
  restarted(meanwhile: () => Promise<void>): Promise<Rig>;
}

async function rig(
  t: TestContext,
  pattern: string,
  root?: string,
  config: Partial<FileSourceConfig> = {},
): Promise<Rig> {
  const folder = root ?? (await temporaryFolder(t));
  const logs = join(folder, "logs");
  await mkdir(logs, { recursive: true });
  const buffer = await openBuffer(join(folder, "buffer"));
  const source = new FileTail({ ...sourceParts(buffer), config: tailConfig(join(logs, pattern), config) });
  const close = async (): Promise<void> => {
    await source.close();
    await buffer.close();
  };
  t.after(close);
  await source.start();
  return {
    logs,
    buffer,
    async lines(count) {
      await until(() => buffer.usage().waitingRecords >= count);
      return (await stored(buffer)).map(({ line }) => String(line));
    },
    async gaps() {
      return (await stored(buffer, GAPS_STREAM)).map(({ reason }) => String(reason));
    },
    async restarted(meanwhile) {
      await close();
      await meanwhile();
      return rig(t, pattern, folder);
    },
  };
}

for (const pattern of ["app.log", "*.log", "app*"]) {
  test(`what was rotated is read also while no new file was made: ${pattern}`, async (t) => {
    const one = await rig(t, pattern);
    const path = join(one.logs, "app.log");
    await writeFile(path, "1\n");
    await one.lines(1);
    const two = await one.restarted(async () => {
      await appendFile(path, "2\n");
      await rename(path, `${path}.2`);
      await pause(TICK_MS);
      await writeFile(path, "3\n");
      await rename(path, `${path}.1`);
      await pause(TICK_MS);
    });
    assert.deepEqual(await two.lines(3), ["1", "2", "3"]);
    await writeFile(path, "4\n");
    assert.deepEqual(await two.lines(4), ["1", "2", "3", "4"]);
    assert.deepEqual(await two.gaps(), []);
  });

  test(`a log that is truncated and copied nowhere is a gap, and is read from its start: ${pattern}`, async (t) => {
    const one = await rig(t, pattern);
    const path = join(one.logs, "app.log");
    await writeFile(path, "first\nsecond\n");
    await one.lines(2);
    await truncate(path, 0);
    await until(async () => (await one.gaps()).length > 0);
    await appendFile(path, "third\n");
    assert.deepEqual((await one.lines(4)).slice(0, 3), ["first", "second", "third"]);
    const two = await one.restarted(() => appendFile(path, "fourth\n"));
    assert.deepEqual(await two.lines(5), ["first", "second", "third", "fourth"]);
    const [gap, ...others] = await two.gaps();
    assert.match(gap!, /truncated/);
    assert.deepEqual(others, []);
  });

  test(`a copy that takes its time is neither cut nor read twice: ${pattern}`, async (t) => {
    const one = await rig(t, pattern);
    const path = join(one.logs, "app.log");
    await writeFile(path, "0\n");
    await one.lines(1);
    const two = await one.restarted(async () => {
      await rename(path, `${path}.2`);
      await pause(TICK_MS);
      await writeFile(path, "one line\nanother line\n");
      await pause(TICK_MS);
      // The rotator is in the midst of it while the source begins.
      await writeFile(`${path}.1`, "");
    });
    const copy = await open(`${path}.1`, "a");
    const whole = await readFile(path);
    await copy.write(whole, 0, 12);
    await pause(50);
    await copy.write(whole, 12);
    await copy.close();
    await pause(50);
    await truncate(path, 0);
    await appendFile(path, "new\n");
    assert.deepEqual(await two.lines(4), ["0", "one line", "another line", "new"]);
    const three = await two.restarted(() => appendFile(path, "last\n"));
    assert.deepEqual(await three.lines(5), ["0", "one line", "another line", "new", "last"]);
    assert.deepEqual(await three.gaps(), []);
  });

  test(`what was rotated and removed before it was read is a gap, told once: ${pattern}`, async (t) => {
    const one = await rig(t, pattern);
    const path = join(one.logs, "app.log");
    await writeFile(path, "1\n");
    await one.lines(1);
    await rename(path, `${path}.1`);
    await writeFile(path, "");
    // The new one is begun, and nothing of it is read.
    const isDone = async (): Promise<boolean> => {
      const [name] = await one.buffer.marks("file/log");
      const at = (await one.buffer.marks("file/log/at/"))[0] ?? name!;
      return String(await one.buffer.mark(at)).includes('"next"');
    };
    await until(isDone);
    const two = await one.restarted(async () => {
      await writeFile(path, "never seen\n");
      await rename(path, `${path}.gone`);
      await writeFile(path, "2\n");
      await rm(`${path}.1`);
      await rm(`${path}.gone`);
    });
    await two.lines(3);
    const three = await two.restarted(() => appendFile(path, "3\n"));
    assert.deepEqual(await three.lines(4), ["1", "2", "3"]);
    const [gap, ...others] = await three.gaps();
    assert.match(gap!, /removed before it was read/);
    assert.deepEqual(others, []);
  });

  test(`a log that was empty when it was first seen and is copied and truncated is read from the copy: ${pattern}`, async (t) => {
    const one = await rig(t, pattern);
    const path = join(one.logs, "app.log");
    await writeFile(path, "");
    const seen = async (): Promise<boolean> => (await one.buffer.marks("file/log")).length > 0;
    await until(seen);
    const two = await one.restarted(async () => {
      await appendFile(path, "1\n");
      await pause(TICK_MS);
      await copyFile(path, `${path}.1`);
      await truncate(path, 0);
      await appendFile(path, "2\n");
    });
    assert.deepEqual(await two.lines(2), ["1", "2"]);
    assert.deepEqual(await two.gaps(), []);
  });
}

test("a log that is written under a new name each day by now goes on where the one without a date ended", async (t) => {
  const one = await rig(t, "*.log");
  const path = join(one.logs, "app.log");
  await writeFile(path, "1\n");
  await one.lines(1);
  await rename(path, join(one.logs, "app-20261121.log"));
  await pause(TICK_MS);
  for (const [i, day] of ["20261122", "20261123"].entries()) {
    const dated = join(one.logs, `app-${day}.log`);
    await writeFile(dated, `${2 * i + 2}\n`);
    await one.lines(2 * i + 2);
    await pause(TICK_MS);
    await appendFile(dated, `${2 * i + 3}\n`);
    await one.lines(2 * i + 3);
  }
  assert.deepEqual(await one.lines(5), ["1", "2", "3", "4", "5"]);
  assert.deepEqual(await one.gaps(), []);
});

test("a place in the form without the file's times is gone on from", async (t) => {
  const one = await rig(t, "app.log");
  const path = join(one.logs, "app.log");
  await writeFile(path, "one\n");
  await one.lines(1);
  const [source] = await one.buffer.marks("");
  const { bornNs, modifiedNs, ...former } = JSON.parse(String(await one.buffer.mark(source!)));
  assert.ok(bornNs !== undefined && modifiedNs !== undefined);
  await one.buffer.setMarks([{ source: source!, value: Buffer.from(JSON.stringify(former)) }]);
  const two = await one.restarted(async () => {
    await appendFile(path, "two\n");
    await rename(path, `${path}.1`);
    await writeFile(path, "three\n");
  });
  assert.deepEqual(await two.lines(3), ["one", "two", "three"]);
  assert.deepEqual(await two.gaps(), []);
});

test("the last line of a rotated CSV file, which has no end, is read with the columns of that file", async (t) => {
  const one = await rig(t, "app.csv", undefined, { format: "csv" });
  const path = join(one.logs, "app.csv");
  await writeFile(path, "sensor,temperature\nbarn,20.5\nshed,19");
  await until(() => one.buffer.usage().waitingRecords >= 1);
  await rename(path, `${path}.1`);
  await writeFile(path, "sensor,humidity\nbarn,60\n");
  await until(() => one.buffer.usage().waitingRecords >= 3);
  assert.deepEqual(
    (await stored(one.buffer)).map(({ sensor, temperature, humidity }) => [sensor, temperature, humidity]),
    [
      ["barn", 20.5, undefined],
      ["shed", 19, undefined],
      ["barn", undefined, 60],
    ],
  );
});
