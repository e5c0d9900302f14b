/** A data folder of which a part is another user's: a restored copy, or one that root once ran the gateway with. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, chown, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { parseConfig } from "../../config/loader.ts";
import { type Gateway, startGateway } from "../../gateway/gateway.ts";
import { verifyDataFolder } from "../../gateway/verify.ts";
import { checkedLine } from "../../runtime/checked-line.ts";
import { systemClock } from "../../runtime/clock.ts";
import type { HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { removeFolder } from "../support/remove-folder.ts";

const YAML = `
dataDir: data
http: {port: 0}
mqtt: {port: 0}
rtsp: {port: 0}
streams: [{name: sensors}]
delivery: [{name: archive, stream: sensors, destination: {type: files, path: out}}]
`;
const NOBODY = 65_534;
const IS_ROOT = process.getuid!() === 0;

function start(dir: string): Promise<Gateway> {
  const log: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };
  const config = parseConfig("gateway.yaml", YAML, gatewayConfig, {});
  return startGateway(config, { configDir: dir, clock: systemClock, log });
}

/** A stopped gateway's folder, of a user who is not root. */
async function stopped(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-foreign-"));
  t.after(() => removeFolder(dir));
  await (await start(dir)).close();
  if (IS_ROOT) execFileSync("chown", ["-R", String(NOBODY), dir]);
  return dir;
}

/** As that user, to whom `path` is closed meanwhile. */
async function without(path: string, work: () => Promise<void>): Promise<void> {
  const { mode } = await stat(path);
  if (IS_ROOT) await chown(path, 0, 0);
  await chmod(path, 0);
  if (IS_ROOT) process.seteuid!(NOBODY);
  try {
    await work();
  } finally {
    if (IS_ROOT) process.seteuid!(0);
    await chmod(path, mode);
    if (IS_ROOT) await chown(path, NOBODY, 0);
  }
}

test("what is another user's is told as that, and not as damage", async (t) => {
  const dir = await stopped(t);
  const key = await readFile(join(dir, "data/access-key.json"), "utf8");
  const [log] = await readdir(join(dir, "data/streams/logs"));
  for (const part of [
    "",
    "access-key.json",
    "lock",
    "streams",
    "streams/streams.json",
    "streams/meta",
    "streams/meta/CURRENT",
    "streams/meta/LOCK",
    "streams/logs",
    `streams/logs/${log}`,
    `streams/logs/${log}/0000000000000000.log`,
    "video",
    "delivery",
    "quarantine/publishes.ndjson",
  ]) {
    const path = join(dir, "data", part);
    await without(path, () =>
      assert.rejects(start(dir), (error: HeadwaterError) => {
        assert.equal(error.code, "DATA_FOLDER", `${part}: ${error.message}`);
        assert.ok(error.message.startsWith(path.replace(/\/$/, "")), error.message);
        return true;
      }),
    );
  }
  await (await start(dir)).close();
  assert.equal(await readFile(join(dir, "data/access-key.json"), "utf8"), key);
});

test("a delivery whose ledger is another user's says so, and does not ask for it to be moved away", async (t) => {
  const dir = await stopped(t);
  await without(join(dir, "data/delivery/archive/delivery.json"), async () => {
    const gateway = await start(dir);
    const { problems } = (await (await fetch(`${gateway.addresses.http}/healthz`)).json()) as {
      problems: string[];
    };
    await gateway.close();
    assert.match(problems.join(), /delivery archive: DATA_FOLDER: .*delivery\.json cannot be read.*EACCES/);
    assert.doesNotMatch(problems.join(), /move it away/);
  });
});

test("--verify refuses what it may not read, and calls none of it damage", async (t) => {
  const dir = await stopped(t);
  const data = join(dir, "data");
  const [log] = await readdir(join(data, "streams/logs"));
  for (const part of [
    "",
    "streams",
    "streams/format.json",
    "streams/streams.json",
    "streams/meta",
    "streams/meta/CURRENT",
    "streams/logs",
    `streams/logs/${log}`,
    `streams/logs/${log}/0000000000000000.log`,
  ]) {
    await without(join(data, part), () =>
      assert.rejects(
        verifyDataFolder(data, () => {}),
        (error: HeadwaterError) => {
          assert.equal(error.code, "VERIFY_REFUSED", `${part}: ${error.message}`);
          assert.match(error.message, /cannot be read.*EACCES/, part);
          return true;
        },
      ),
    );
  }
});

test("--verify checks a copy that nobody may write to", async (t) => {
  const dir = await stopped(t);
  const data = join(dir, "data");
  execFileSync("chmod", ["-R", "a-w", data]);
  const said: string[] = [];
  if (IS_ROOT) process.seteuid!(NOBODY);
  try {
    assert.equal(await verifyDataFolder(data, (line) => said.push(line)), true, said.join("\n"));
  } finally {
    if (IS_ROOT) process.seteuid!(0);
    execFileSync("chmod", ["-R", "u+w", data]);
  }
});

test("a half-copied folder is refused by the start and by --verify, and left as it is", async (t) => {
  const dir = await stopped(t);
  const data = join(dir, "data");
  await rm(join(data, "streams/format.json"));
  const refused = async (): Promise<void> => {
    for (const look of [() => start(dir), () => verifyDataFolder(data, () => {})]) {
      await assert.rejects(look(), (error: HeadwaterError) => {
        assert.equal(error.code, "STREAM_FORMAT");
        assert.match(error.message, /format\.json is missing/);
        assert.match(error.hint ?? "", /backup/);
        return true;
      });
    }
  };
  await refused();
  for (const name of ["streams.json", "meta"]) await rm(join(data, "streams", name), { recursive: true });
  const before = await readdir(join(data, "streams/logs"));
  await refused();
  assert.deepEqual(await readdir(join(data, "streams/logs")), before);
  // What a first start leaves that was cut off before it wrote the format is none.
  await rm(join(data, "streams"), { recursive: true });
  await writeFile(join(data, "streams.txt"), "");
  await (await start(dir)).close();
});

test("what a later version of the gateway wrote is named as that, and left as it is", async (t) => {
  const dir = await stopped(t);
  const ledger = join(dir, "data/delivery/archive/delivery.json");
  const [json] = (await readFile(ledger, "utf8")).split("\n");
  const later = checkedLine(json!.replace(/"formatVersion":\d+/, '"formatVersion":99'));
  await writeFile(ledger, later);
  const gateway = await start(dir);
  const { problems } = (await (await fetch(`${gateway.addresses.http}/healthz`)).json()) as {
    problems: string[];
  };
  await gateway.close();
  assert.match(problems.join(), /DELIVERY_STATE_NEWER: .* has format version 99, .*\(start the version/);
  assert.equal(await readFile(ledger, "utf8"), later);
});
