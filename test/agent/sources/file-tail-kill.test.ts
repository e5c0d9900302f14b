import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { appendFile, copyFile, rename, truncate } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { drained } from "./source-parts.ts";

const script = scriptPath("./tail-until-killed.ts", import.meta.url);

async function tailing(t: TestContext, folder: string, path: string): Promise<ChildProcess> {
  const child = fork(script, [folder, path], { execArgv: [...nodeFlags] });
  t.after(() => child.kill("SIGKILL"));
  await message(child);
  return child;
}

/** The next that it says. @throws when it ends instead, or cannot be started */
async function message(child: ChildProcess): Promise<unknown> {
  const heard = new AbortController();
  const { signal } = heard;
  const ended = once(child, "exit", { signal }).then(([code, by]) => {
    throw new Error(`the reader ended by itself: ${code ?? by}`);
  });
  try {
    const [said] = await Promise.race([once(child, "message", { signal }) as Promise<[unknown]>, ended]);
    return said;
  } finally {
    ended.catch(() => {});
    heard.abort();
  }
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

/** Lines are written, the file is rotated both ways, and the reader is killed again and again. */
for (const pattern of ["app.log", "app*"]) {
  test(`a log that is rotated while its reader is killed is stored whole, each line once: ${pattern}`, (t) =>
    killAndRotate(t, pattern));
}

async function killAndRotate(t: TestContext, pattern: string): Promise<void> {
  const folder = await temporaryFolder(t);
  const path = join(folder, "app.log");
  let n = 0;
  let rotations = 0;
  const write = async (lines: number): Promise<void> => {
    for (let i = 0; i < lines; i += 20) {
      const some = Array.from({ length: 20 }, () => `line ${n++} ${"x".repeat(n % 90)}\n`);
      await appendFile(path, some.join(""));
    }
  };
  const rotate = async (): Promise<void> => {
    rotations++;
    // Numbers as logrotate's dateext has them: no file is renamed twice.
    if (rotations % 2 === 0) return rename(path, `${path}-${rotations}`);
    await copyFile(path, `${path}-${rotations}`);
    await truncate(path, 0);
  };
  for (let round = 0; round < 6; round++) {
    await write(200);
    const child = await tailing(t, join(folder, "buffer"), join(folder, pattern));
    // What was rotated before its first look at all is not its own.
    while (round === 0 && (await storedBy(child)) === 0)
      await new Promise((resolve) => setTimeout(resolve, 5));
    await write(400);
    await rotate();
    await write(200);
    await new Promise((resolve) => setTimeout(resolve, (round * 37) % 90));
    await kill(child);
    await write(200);
  }
  const last = await tailing(t, join(folder, "buffer"), join(folder, pattern));
  await write(20);
  const giveUp = AbortSignal.timeout(150_000);
  for (let has = 0; has < n; has = await storedBy(last)) {
    assert.ok(!giveUp.aborted, `${has} of ${n}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await kill(last);
  const buffer = await openBuffer(join(folder, "buffer"));
  const seen = (await drained(buffer, n)).map(({ line }) => Number(String(line).split(" ")[1]));
  assert.deepEqual(
    seen.slice(0, n),
    Array.from({ length: n }, (_, i) => i),
  );
  assert.equal(buffer.usage().waitingRecords, 0, "none twice");
  await buffer.close();
}

/** How many records wait in its buffer. */
async function storedBy(child: ChildProcess): Promise<number> {
  const answer = message(child);
  child.send("how many?");
  return (await answer) as number;
}
