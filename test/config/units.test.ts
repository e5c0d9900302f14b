import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** Of systemd's own scale, on which 0 is best and 10 worst. */
const MAX_EXPOSURE = 2.0;
const analyze = spawnSync("systemd-analyze", ["--version"]).status === 0;
/** Units are not compiled: they are found from the sources and from `dist` alike. */
const root = new URL(import.meta.url.endsWith(".js") ? "../../../" : "../../", import.meta.url);
const PROGRAMS = ["agent", "gateway"] as const;

function unit(program: (typeof PROGRAMS)[number]): string {
  return fileURLToPath(new URL(`config/systemd/headwater-${program}.service`, root));
}

/** Each setting with all its values, in the order of the file. */
async function settings(program: (typeof PROGRAMS)[number]): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const line of (await readFile(unit(program), "utf8")).split("\n")) {
    const [, key, value] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? [];
    if (key !== undefined) found.set(key, [...(found.get(key) ?? []), value!]);
  }
  return found;
}

for (const program of PROGRAMS) {
  const skip = !analyze && "systemd-analyze is not installed (package systemd)";
  test(`the ${program}'s unit exposes little`, { skip }, () => {
    const { stdout, stderr } = spawnSync(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", unit(program)],
      {
        encoding: "utf8",
      },
    );
    const score = /Overall exposure level for .*: ([\d.]+)/.exec(stdout)?.[1];
    assert.ok(score !== undefined, stderr);
    assert.ok(Number(score) <= MAX_EXPOSURE, `${score}:\n${stdout}`);
  });

  test(`systemd understands every line of the ${program}'s unit`, { skip }, () => {
    const { stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", unit(program)], {
      encoding: "utf8",
    });
    const complaints = stderr.split("\n").filter((line) => line.includes(`headwater-${program}`));
    // The program itself is not installed here; systemd before 254 knows no steps, and goes on without.
    const expected =
      /Command .* is not executable|Unknown key (?:name )?'(?:RestartSteps|RestartMaxDelaySec)'.*ignoring/;
    assert.deepEqual(
      complaints.filter((line) => !expected.test(line)),
      [],
    );
  });

  test(`the ${program}'s unit fits the program`, async () => {
    const found = await settings(program);
    const one = (key: string): string | undefined => found.get(key)?.[0];
    assert.equal(one("Type"), "notify");
    // Node cannot send to systemd's socket by itself; a child does.
    assert.equal(one("NotifyAccess"), "all");
    assert.equal(one("RestartPreventExitStatus"), "2");
    // Longer than the programs' own limit for draining, after which they end by themselves.
    assert.ok(Number(one("TimeoutStopSec")) > 10);
    assert.ok(Number(one("WatchdogSec")) >= 30);
    assert.equal(one("StateDirectory"), `headwater-${program}`);
    assert.equal(one("LoadCredential"), `secret:/etc/headwater/${program}.credentials`);
    assert.equal(one("DynamicUser"), "yes");
    assert.equal(found.has("MemoryDenyWriteExecute"), false, "V8 compiles while it runs");
  });
}

test("the agent's unit keeps its memory small and lets it use serial lines", async () => {
  const found = await settings("agent");
  assert.ok(found.get("Environment")?.includes("MALLOC_MMAP_THRESHOLD_=131072"));
  assert.match(found.get("SupplementaryGroups")?.[0] ?? "", /\bdialout\b/);
  for (const device of ["char-ttyUSB", "char-ttyACM", "char-ttyAMA", "char-ttyS"])
    assert.ok(found.get("DeviceAllow")?.includes(`${device} rw`), device);
});
