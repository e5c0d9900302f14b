import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { openSerialPort } from "../../agent/sources/serial/serial-port.ts";
import { AnomalyRecord } from "../../firmware-sim/anomaly-record.ts";
import { Board } from "../../firmware-sim/board.ts";
import { MessageNumbers } from "../../firmware-sim/message-numbers.ts";
import { TruthFile } from "../../firmware-sim/truth-file.ts";
import { pause } from "../../runtime/backoff.ts";
import { systemClock } from "../../runtime/clock.ts";
import { silentLog } from "../../runtime/log.ts";

async function until(holds: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    assert.ok(Date.now() < endMs, `not within ${timeoutMs} ms: ${what}`);
    await pause(10);
  }
}

function makeBoard(t: TestContext, hz = 200) {
  const folder = mkdtempSync(join(tmpdir(), "hw-board-"));
  const truth = new TruthFile(join(folder, "board.ndjson"));
  const anomalyTruth = new TruthFile(join(folder, "anomalies.ndjson"));
  truth.open();
  anomalyTruth.open();
  const path = join(folder, "dev", "ttyBOARD");
  const board = new Board({
    path,
    hz,
    sensor: "board",
    seed: 5,
    anomalySeconds: 45,
    truth,
    anomalies: new AnomalyRecord(anomalyTruth),
    numbers: new MessageNumbers(join(folder, "numbers.json")),
    clock: systemClock,
    log: silentLog,
  });
  t.after(async () => {
    await board.close();
    truth.close();
    anomalyTruth.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const written = () => {
    truth.flush();
    return readFileSync(join(folder, "board.ndjson"), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  };
  return { board, path, written };
}

async function openPort(path: string) {
  const port = await openSerialPort(path, 115_200);
  let text = "";
  port.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  const lines = () => text.split("\n").slice(0, -1);
  const close = () => new Promise<void>((resolve) => (port.isOpen ? port.close(() => resolve()) : resolve()));
  return { port, lines, close };
}

test("a reader of the serial port gets every line that was written while it had the port open", async (t) => {
  const { board, path, written } = makeBoard(t);
  board.start();
  await until(() => existsSync(path), "the link");
  const reader = await openPort(path);
  await until(() => reader.lines().length >= 100, "lines");
  board.stopSending();
  const counterOf = (line = "{}"): number => JSON.parse(line).counter;
  const last = written().at(-1).counter;
  await until(() => counterOf(reader.lines().at(-1)) === last, "the last line");
  const read = reader.lines().map((line) => JSON.parse(line));
  // Opening a terminal throws away what is waiting in it, which the board may have begun to write by then.
  const opening = written().findIndex(({ counter }) => counter === read[0].counter);
  assert.ok(opening >= 0 && opening <= 100, `${opening} lines before the first that was read`);
  assert.deepEqual(
    read.map(({ sensor, ...values }) => values),
    written()
      .slice(opening)
      .map(({ atUs, ...values }) => values),
  );
  assert.equal(read[0].sensor, "board");
  assert.equal("time" in read[0], false);
  await reader.close();
});

test("what is said while nobody listens is gone, and the counter goes on", async (t) => {
  const { board, path } = makeBoard(t, 500);
  board.start();
  await until(() => board.status().dropped > 300, "dropped lines");
  assert.equal(board.status().lines, 0);
  const first = await openPort(path);
  await until(() => first.lines().length > 20, "lines");
  assert.ok(JSON.parse(first.lines()[0]!).counter >= 300, "no stale line");
  await first.close();
  await until(() => !board.status().open, "the port's closing");
  const before = board.status().dropped;
  await until(() => existsSync(path) && board.status().dropped > before + 100, "dropped lines");
  const second = await openPort(path);
  await until(() => second.lines().length > 20, "lines after reopening");
  const last = JSON.parse(first.lines().at(-1)!).counter;
  assert.ok(JSON.parse(second.lines()[0]!).counter > last + 100);
  await second.close();
});

test("a reader that is open but does not read costs lines, not memory", async (t) => {
  const { board, path } = makeBoard(t, 1_000);
  board.start();
  await until(() => existsSync(path), "the link");
  const reader = spawn("sh", ["-c", 'exec 3<"$1"; echo open; exec sleep 600', "sh", path], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(() => reader.kill("SIGKILL"));
  await once(reader.stdout, "data");
  await until(() => board.status().open && board.status().waitingBytes > 4_096, "a full line");
  const { dropped } = board.status();
  await until(() => board.status().dropped > dropped + 100, "dropped lines");
  assert.ok(board.status().waitingBytes < 8_192);
});

test("a pulled cable closes the port; plugged in again it comes back under the same name", async (t) => {
  const { board, path } = makeBoard(t);
  board.start();
  await until(() => existsSync(path), "the link");
  const reader = await openPort(path);
  await until(() => reader.lines().length > 5, "lines");
  const closed = once(reader.port, "close");
  await board.unplug();
  await closed;
  assert.equal(existsSync(path), false);
  board.plug();
  await until(() => existsSync(path), "the link again");
  const again = await openPort(path);
  await until(() => again.lines().length > 5, "lines again");
  await again.close();
});

test("garbage stands between whole lines", async (t) => {
  const { board, path, written } = makeBoard(t);
  board.start();
  await until(() => existsSync(path), "the link");
  const reader = await openPort(path);
  await until(() => reader.lines().length > 5, "lines");
  assert.equal(board.garbage(300), true);
  const before = board.status().lines;
  await until(() => board.status().lines > before + 20, "lines after the garbage");
  board.stopSending();
  const good = () =>
    reader.lines().filter((line) => line.startsWith('{"sensor":"board"') && line.endsWith("}"));
  // But for those that the opening of the port threw away.
  const opening = JSON.parse(good()[0]!).counter - written()[0].counter;
  await until(() => good().length === board.status().lines - opening, "every line whole");
  assert.ok(reader.lines().length > good().length);
  await reader.close();
});
