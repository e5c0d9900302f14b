/** What becomes of the log where it cannot be written. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";

const PROGRAM = `
import { createLog } from ${JSON.stringify(new URL("../../runtime/log.js", import.meta.url).href)};
const log = createLog("gateway", "info");
const before = process.memoryUsage.rss();
for (let i = 0; i < 40_000; i++) log.child({ i }).warn({ text: "x".repeat(2_000) }, "the disk refuses writes");
process.stdout.write(\`lives, \${Math.round((process.memoryUsage.rss() - before) / 1_048_576)} MiB\`);
`;

test("a log on a full disk ends no program, and does not fill its memory", async () => {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", PROGRAM], {
    stdio: ["ignore", "pipe", openSync("/dev/full", "w")],
  });
  let said = "";
  child.stdout!.on("data", (bytes) => (said += bytes));
  const [code] = await once(child, "close");
  assert.equal(code, 0);
  const [, mib] = /^lives, (-?\d+) MiB$/.exec(said) ?? [];
  assert.ok(Number(mib) < 64, said);
});

const ROOM_AGAIN = `
import { truncateSync } from "node:fs";
import { createLog } from ${JSON.stringify(new URL("../../runtime/log.js", import.meta.url).href)};
const log = createLog("gateway", "info");
for (let i = 0; i < 1_000; i++) log.warn({ text: "x".repeat(2_000) }, "the disk refuses writes");
for (let i = 0; i < 40; i++) {
  truncateSync(process.env.LOG_FILE, 0);
  log.warn({}, "room again");
}
log.warn({}, "and again");
`;

test("a log that was full goes on when there is room, and says how many lines it dropped", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-log-"));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, "log");
  // Files may have 32 KiB and no more, as on a full disk.
  const limited = ["-c", 'ulimit -f 64 && exec "$@" 2>>"$LOG_FILE"', "sh"];
  const program = [process.execPath, "--input-type=module", "--eval", ROOM_AGAIN];
  const child = spawn("sh", [...limited, ...program], { env: { ...process.env, LOG_FILE: file } });
  const [code] = await once(child, "close");
  assert.equal(code, 0);
  const written = (await readFile(file, "utf8")).trimEnd().split("\n");
  const said = written.map((line) => JSON.parse(line) as { msg: string; lines?: number });
  const told = "lines of the log were dropped while it could not be written";
  assert.deepEqual([said.at(-2)?.msg, said.at(-1)?.msg], ["and again", told]);
  // About 480 of the 1,000 fitted.
  assert.ok(said.at(-1)!.lines! > 400, written.at(-1));
});

const ENDS = `
import { closeOnExit } from ${JSON.stringify(new URL("../../runtime/shutdown.js", import.meta.url).href)};
import { createLog } from ${JSON.stringify(new URL("../../runtime/log.js", import.meta.url).href)};
const log = createLog("gateway", "info");
closeOnExit(async () => {}, log);
setInterval(() => {}, 1_000);
for (let n = 0; n < 3_000; n++) log.warn({ n, text: "x".repeat(1_000) }, "line");
process.stdout.write("lives");
`;

/** A program whose standard error is a pipe that nobody reads yet. */
async function withUnreadPipe(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "headwater-log-"));
  const pipe = join(dir, "pipe");
  execFileSync("mkfifo", [pipe]);
  const reader = new Socket({
    fd: openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK),
    writable: false,
  });
  const writer = openSync(pipe, "w");
  const child = spawn(process.execPath, ["--input-type=module", "--eval", ENDS], {
    stdio: ["ignore", "pipe", writer],
  });
  t.after(async () => {
    child.kill("SIGKILL");
    reader.destroy();
    await rm(dir, { recursive: true });
  });
  const ended = once(child, "exit");
  await once(child.stdout!, "data");
  closeSync(writer);
  return { child, reader, ended };
}

test("a pipe that nobody reads keeps no program from its work, nor from its end", {
  timeout: 60_000,
}, async (t) => {
  const { child, ended } = await withUnreadPipe(t);
  child.kill("SIGTERM");
  assert.deepEqual(await ended, [0, null]);
});

test("what a slow reader of the log did not get in time is counted", { timeout: 60_000 }, async (t) => {
  const { child, reader, ended } = await withUnreadPipe(t);
  let text = "";
  reader.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
    if (/"lines":.*\n$/.test(text)) child.kill("SIGTERM");
  });
  await Promise.all([ended, once(reader, "end")]);
  const said = text.trimEnd().split("\n");
  const lines = said.map(
    (line) => JSON.parse(line) as { level: string; msg: string; n?: number; lines?: number },
  );
  const numbers = lines.flatMap(({ n }) => n ?? []);
  const told = lines.find((line) => line.lines !== undefined)!;
  assert.deepEqual(
    [told.level, told.msg],
    ["warn", "lines of the log were dropped while it could not be written"],
  );
  // What waits is a mebibyte, up to its last line; the pipe holds some more.
  const taken = said.slice(0, numbers.length).reduce((sum, line) => sum + line.length + 1, 0);
  assert.ok(taken > 1_048_576 - 2_000, `${taken} bytes came`);
  assert.equal(numbers.length + told.lines!, 3_000);
  assert.deepEqual(lines.at(-1)?.msg, "closing");
});
