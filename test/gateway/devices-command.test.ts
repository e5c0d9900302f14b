import assert from "node:assert/strict";
import test from "node:test";
import { runDevices } from "../../gateway/devices-command.ts";

/** Runs `devices` without a gateway and without a config. */
async function run(...args: string[]): Promise<{ code: number; said: string; complained: string }> {
  let said = "";
  let complained = "";
  const code = await runDevices({
    args,
    dataDirOf: () => Promise.reject(new Error("there is no config")),
    write: (text) => {
      said += text;
    },
    complain: (text) => {
      complained += text;
    },
  });
  return { code, said, complained };
}

test("devices --help says what there is and is no mistake", async () => {
  for (const args of [["--help"], ["token", "--help"]]) {
    const { code, said, complained } = await run(...args);
    assert.deepEqual([code, complained], [0, ""]);
    assert.match(said, /devices token NAME \[--hours N\] --config FILE/);
  }
});

test("a command line that devices does not understand ends with 2 and what it would understand", async () => {
  for (const args of [[], ["token"], ["list", "pi-1", "--config", "g.yaml"], ["list"], ["forget", "pi-1"]]) {
    const { code, said, complained } = await run(...args);
    assert.deepEqual([code, said], [2, ""], args.join(" "));
    assert.match(complained, /devices revoke NAME --config FILE/);
  }
});
