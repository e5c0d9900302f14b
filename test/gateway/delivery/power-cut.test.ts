import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import test from "node:test";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { SmallDisk } from "../../support/small-disk.ts";
import { closeRigs, countInOrder, files, lines, numbered, openRig, STREAM, until } from "./delivery-rig.ts";

const child = scriptPath("./halted-delivery.ts", import.meta.url);
const DISK_BYTES = 256 * 1_048_576;
const RECORDS = 60;

/** What nobody can take for an object yet. */
const isMade = (name: string): boolean => !name.endsWith(".tmp");

const STEPS: CutStep[] = ["built", "manifest", "confirmed", "object", "checkpoint", "ledger"];
for (const step of STEPS) {
  test(`a delivery whose power is cut behind "${step}" goes on without loss or doubling`, async (t) => {
    const disk = await SmallDisk.make(DISK_BYTES);
    if (typeof disk === "string") {
      t.skip(disk);
      return;
    }
    try {
      const dir = join(disk.path, "data");
      const before = await openRig(dir);
      await before.streams.append(STREAM, numbered(0, RECORDS));
      await before.close();
      const made = await cutPowerBehind(disk, dir, step);
      await disk.unmount();
      await disk.mount();

      const found = await files(join(dir, "out"));
      for (const [name, bytes] of made) assert.deepEqual(found.get(name), bytes, `${name} was there`);
      const rig = await openRig(dir, { bufferBytes: 600, bufferSeconds: 0.05 });
      await rig.delivery.start();
      await until("all delivered", () => rig.delivery.status()[0]!.deliveredRecords === RECORDS);
      assert.equal(countInOrder(await lines(rig.out)), RECORDS);
      const after = await files(rig.out);
      for (const [name, bytes] of made) assert.deepEqual(after.get(name), bytes, `${name} changed`);
      assert.deepEqual(
        [...after.keys()].filter((name) => !isMade(name)),
        [],
      );
      assert.equal(rig.delivery.status()[0]!.deliveredObjects, after.size);
    } finally {
      await closeRigs();
      await disk.remove();
    }
  });
}

/** @returns the objects that were there at the cut, which comes behind the step of the second one */
async function cutPowerBehind(disk: SmallDisk, dir: string, step: CutStep): Promise<Map<string, Buffer>> {
  const running = spawn(process.execPath, [...nodeFlags, child, dir, step, "2"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(running, "exit");
  try {
    await Promise.race([
      once(running.stdout, "data"),
      ended.then(([code]) => Promise.reject(new Error(`ended with ${code} before it came to ${step}`))),
    ]);
    const made = await files(join(dir, "out"));
    await disk.cutPower(running.pid);
    return new Map([...made].filter(([name]) => isMade(name)));
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
}
