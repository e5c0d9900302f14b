/** Two gateways that are given the same data folder. */
import assert from "node:assert/strict";
import { mkdtemp, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { parseConfig } from "../../config/loader.ts";
import { type Gateway, startGateway } from "../../gateway/gateway.ts";
import { systemClock } from "../../runtime/clock.ts";
import { RESERVE_BYTES } from "../../runtime/disk-reserve.ts";
import { silentLog } from "../../runtime/log.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { SmallDisk } from "../support/small-disk.ts";

const YAML = "{dataDir: data, http: {port: 0}, mqtt: {port: 0}, rtsp: {port: 0}, streams: [{name: sensors}]}";

function start(dir: string): Promise<Gateway> {
  const config = parseConfig("gateway.yaml", YAML, gatewayConfig, {});
  return startGateway(config, { configDir: dir, clock: systemClock, log: silentLog });
}

test("the second gateway on a data folder is refused, and may have it when the first has ended", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-lock-"));
  t.after(() => removeFolder(dir));
  const first = await start(dir);
  await assert.rejects(start(dir), { code: "DATA_FOLDER_LOCKED" });
  await first.probe();
  await first.close();
  await (await start(dir)).close();
});

test("on a full disk the second gateway leaves the first one's reserve alone; without the first it starts in it", async (t) => {
  const disk = await SmallDisk.make(128 << 20);
  if (typeof disk === "string") return t.skip(disk);
  t.after(() => disk.remove());
  const first = await start(disk.path);
  const reserve = join(disk.path, "data", "disk-reserve");
  await disk.fill();
  const before = await stat(reserve);
  await assert.rejects(start(disk.path), { code: "DATA_FOLDER_LOCKED" });
  const { size, mtimeMs } = await stat(reserve);
  assert.deepEqual([size, mtimeMs], [RESERVE_BYTES, before.mtimeMs]);
  await first.close();
  await (await start(disk.path)).close();
});
