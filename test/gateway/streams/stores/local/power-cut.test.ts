import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import test from "node:test";
import { nodeFlags, scriptPath } from "../../../../support/script.ts";
import { SmallDisk } from "../../../../support/small-disk.ts";
import { appendUntilEnded, expectedTexts, textsByKey } from "./acknowledged.ts";
import { type LocalPlace, makeLocalPlace } from "./local-place.ts";

const DISK_BYTES = 256 * 1_048_576;
const ROUNDS = 4;

for (const mode of ["synced", "without-sync"] as const) {
  const promise =
    mode === "synced"
      ? "after a power cut every acknowledged frame is there once, whole and in order"
      : "the same cut finds out a log that acknowledges what it has not synced";
  test(promise, { timeout: 240_000 }, async (t) => {
    const disk = await SmallDisk.make(DISK_BYTES);
    if (typeof disk === "string") {
      t.skip(disk);
      return;
    }
    const place = await makeLocalPlace(join(disk.path, "streams"));
    try {
      const made = await place.open();
      await made.createStream({ name: "s", shards: 2, retentionHours: 24 });
      await made.close();
      const lost = await cutAgainAndAgain(disk, place, mode);
      if (mode === "synced") assert.equal(lost, undefined);
      else assert.ok(lost !== undefined, "nothing was lost");
    } finally {
      await disk.remove();
      await place.remove();
    }
  });
}

test("what was read behind a crash is still there when the power is cut behind that", {
  timeout: 240_000,
}, async (t) => {
  const disk = await SmallDisk.make(DISK_BYTES);
  if (typeof disk === "string") {
    t.skip(disk);
    return;
  }
  const place = await makeLocalPlace(join(disk.path, "streams"));
  try {
    const made = await place.open();
    await made.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await made.close();
    await once(crashedLog(place, "write"), "exit");
    const reader = crashedLog(place, "read");
    let said = "";
    for await (const text of reader.stdout!.setEncoding("utf8")) {
      said += text;
      if (said.endsWith("\n")) break;
    }
    await disk.cutPower(reader.pid);
    reader.kill("SIGKILL");
    if (reader.signalCode === null) await once(reader, "exit");
    await disk.unmount();
    await disk.mount();
    const streams = await place.open();
    const texts = await textsByKey(streams);
    await streams.close();
    assert.ok(texts.size > 0);
    assert.deepEqual(texts, new Map(JSON.parse(said)));
  } finally {
    await disk.remove();
    await place.remove();
  }
});

function crashedLog({ dir }: LocalPlace, what: "write" | "read"): ChildProcess {
  const script = scriptPath("./crashed-log.ts", import.meta.url);
  return fork(script, [dir, what], {
    execArgv: [...nodeFlags],
    stdio: ["ignore", "pipe", "inherit", "ipc"],
  });
}

/** What differed from what was acknowledged; undefined when nothing ever did. */
async function cutAgainAndAgain(
  disk: SmallDisk,
  place: LocalPlace,
  mode: "synced" | "without-sync",
): Promise<string | undefined> {
  let acknowledged = 0n;
  for (let round = 0; round < ROUNDS; round++) {
    const afterMs = 20 + Math.random() * 300;
    const cut = async (child: ChildProcess): Promise<void> => {
      await disk.cutPower(child.pid);
      child.kill("SIGKILL");
    };
    acknowledged = await appendUntilEnded(place.dir, acknowledged + 1n, { afterMs }, cut, mode);
    await disk.unmount();
    await disk.mount();
    const streams = await place.open();
    const texts = await textsByKey(streams);
    await streams.close();
    try {
      assert.deepEqual(texts, expectedTexts(acknowledged, texts));
      assert.ok(texts.size > 0 && !place.logged.some((line) => line.includes("damaged")));
    } catch (error) {
      return `round ${round}: ${(error as Error).message}`;
    }
  }
  return undefined;
}
