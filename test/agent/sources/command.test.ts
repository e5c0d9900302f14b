import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { CommandSource } from "../../../agent/sources/command.ts";
import type { CommandSourceConfig } from "../../../config/source-config.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { drained, sourceParts, stored, until } from "./source-parts.ts";

async function command(
  t: TestContext,
  buffer: RecordBuffer,
  script: string,
  config: Partial<CommandSourceConfig> = {},
): Promise<CommandSource> {
  const source = new CommandSource({
    ...sourceParts(buffer),
    environment: { PATH: process.env.PATH, SECRET: "agent's own" },
    config: {
      type: "command",
      name: "meter",
      command: ["sh", "-c", script],
      format: "json-lines",
      stream: "sensors",
      timeoutSeconds: 60,
      ...config,
    },
  });
  t.after(() => source.close());
  await source.start();
  return source;
}

/** False also for a process that has ended and waits for its parent. */
async function lives(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
}

/** @param file with a line for each process that was left behind */
async function endAll(file: string): Promise<void> {
  for (const pid of (await readFile(file, "utf8")).trim().split("\n").map(Number))
    if (await lives(pid)) process.kill(pid, "SIGKILL");
}

test("lines become records; a program that ends is started again, with its last words as the reason", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await command(
    t,
    buffer,
    `echo '{"n":1}'; echo nonsense; echo oh dear >&2; printf '{"n":2}'; exit 3`,
  );
  await until(() => buffer.usage().waitingRecords >= 6);
  const records = await stored(buffer);
  assert.deepEqual(
    records.slice(0, 3).map(({ n, raw }) => n ?? Buffer.from(String(raw), "base64").toString()),
    [1, "nonsense", 2],
  );
  await until(() => /COMMAND_ENDED: sh ended with code 3: oh dear \(/.test(source.status().lastError ?? ""));
  await source.close();
  await buffer.close();
});

test("it sees little of the agent's environment, and what the config adds", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await command(
    t,
    buffer,
    'echo "{\\"secret\\":\\"$SECRET\\",\\"unit\\":\\"$UNIT\\"}"; sleep 60',
    {
      env: { UNIT: "kWh" },
    },
  );
  await until(() => buffer.usage().waitingRecords === 1);
  const [record] = await stored(buffer);
  assert.deepEqual([record!.secret, record!.unit], ["", "kWh"]);
  await source.close();
  await buffer.close();
});

test("closing leaves no process behind, not even one that does not listen", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const script = `trap '' TERM; sh -c 'trap "" TERM; echo "{\\"child\\":$$}"; while :; do sleep 0.1; done' & wait; wait`;
  const source = await command(t, buffer, script);
  await until(() => buffer.usage().waitingRecords === 1);
  const [record] = await stored(buffer);
  const [child, parent] = [record!.child as number, source.pid!];
  assert.deepEqual([await lives(child), await lives(parent)], [true, true]);
  await source.close();
  await until(async () => !(await lives(child)) && !(await lives(parent)));
  await buffer.close();
});

test("one that is run every so often may end, and is killed when it takes too long", async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"));
  const source = await command(t, buffer, `echo '{"n":1}'`, { everySeconds: 0.05 });
  await until(() => buffer.usage().waitingRecords >= 3);
  assert.equal(source.status().health, "running");
  assert.equal(source.status().lastError, undefined);
  await source.close();
  const slow = await command(t, buffer, "sleep 60", {
    name: "slow",
    everySeconds: 0.05,
    timeoutSeconds: 0.1,
  });
  await until(() => /took longer than 0.1 s/.test(slow.status().lastError ?? ""));
  await slow.close();
  await buffer.close();
});

test("a program that is not there is a clear error", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = await command(t, buffer, "", { command: ["no-such-program-here"] });
  await until(() => /could not be run.*no-such-program-here/.test(source.status().lastError ?? ""));
  await until(() => source.status().health === "backing-off");
  await source.close();
  await buffer.close();
});

test("while the buffer is full the program waits, and nothing is lost", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t), { maxBytes: 60_000 });
  const source = await command(
    t,
    buffer,
    `i=0; while [ $i -lt 3000 ]; do echo "{\\"n\\":$i}"; i=$((i+1)); done; sleep 60`,
  );
  const seen = await drained(buffer, 3_000);
  assert.deepEqual(
    seen.map(({ n }) => n),
    Array.from({ length: 3_000 }, (_, i) => i),
  );
  await source.close();
  await buffer.close();
});

test("a program whose grandchild in a group of its own holds its output is over in time all the same", {
  timeout: 120_000,
}, async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"));
  const pids = join(folder, "pids");
  const script = `setsid sleep 600 & echo $! >> ${pids}; echo '{"n":1}'; exit 0`;
  const source = await command(t, buffer, script, { everySeconds: 0.2, timeoutSeconds: 1 });
  await until(async () => (await stored(buffer)).filter(({ n }) => n === 1).length >= 2);
  await source.close();
  await endAll(pids);
  await buffer.close();
});

test("a program that is meant to run and ends is started again, whatever it left behind", async (t) => {
  for (const left of ["sleep 600", "setsid sleep 600"]) {
    const folder = await temporaryFolder(t);
    const pids = join(folder, "pids");
    const buffer = await openBuffer(join(folder, "buffer"));
    const source = await command(t, buffer, `${left} & echo $! >> ${pids}; echo '{"n":1}'; exit 0`);
    await until(() => buffer.usage().waitingRecords >= 2);
    await source.close();
    await endAll(pids);
    await buffer.close();
  }
});

test("lines that a program wrote before it ended wait for the buffer, and are not lost", async (t) => {
  const folder = await temporaryFolder(t);
  const buffer = await openBuffer(join(folder, "buffer"), { maxBytes: 60_000 });
  const pids = join(folder, "pids");
  const script = `setsid sleep 600 & echo $! >> ${pids}; i=0; while [ $i -lt 3000 ]; do echo "{\\"n\\":$i}"; i=$((i+1)); done`;
  const source = await command(t, buffer, script);
  // Longer than what is left behind may hold the output.
  await until(() => source.status().state === "stalled");
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const seen = await drained(buffer, 3_000);
  assert.deepEqual(
    seen.slice(0, 3_000).map(({ n }) => n),
    Array.from({ length: 3_000 }, (_, i) => i),
  );
  await source.close();
  await endAll(pids);
  await buffer.close();
});

test("without descriptors nothing is started, and the agent lives on", { timeout: 180_000 }, async (t) => {
  const folder = await temporaryFolder(t);
  const script = scriptPath("./command-no-descriptors.ts", import.meta.url);
  const limited = ["-c", 'ulimit -n 200; exec "$0" "$@"', process.execPath, ...nodeFlags, script, folder];
  const child = spawn("sh", limited, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const chunk of child.stdout) said += chunk;
  assert.equal(said, "goes on\n");
});
