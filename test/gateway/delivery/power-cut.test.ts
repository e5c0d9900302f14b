import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";
import type { CutStep } from "../../../gateway/delivery/cutter.ts";
import { scriptPath } from "../../support/script.ts";
import { SmallDisk } from "../../support/small-disk.ts";
import { cutPowerAtHalt } from "../../support/stopped-program.ts";
import { closeRigs, countInOrder, files, lines, numbered, openRig, STREAM, until } from "./delivery-rig.ts";

const SCRIPT = scriptPath("./stopped-delivery.ts", import.meta.url);
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
      let made: [string, Buffer][] = [];
      await cutPowerAtHalt(disk, SCRIPT, [dir, step, "2"], async () => {
        made = [...(await files(join(dir, "out")))].filter(([name]) => isMade(name));
      });

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
