import assert from "node:assert/strict";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Program } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";

/** Those that begin with the first picture of a camera, or of a device that joined: this agent has none, and did not. */
const ELSEWHERE =
  /^headwater_(agent_footage_(malformed|persisted|sent|unstored|uplink)_|identity_(certificate_end_seconds|renewals_total)$)/;

test("docs/reference/agent-status.md names the metrics that an agent has, and no others", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-agent-metrics-"));
  const config = join(dir, "agent.yaml");
  await writeFile(
    config,
    `
device: pi-1
dataDir: data
http: { port: 0 }
sources:
  - { name: local, type: mqtt, port: 0 }
  - { name: yard, type: camera, url: "rtsp://127.0.0.1:9/yard" }
`,
  );
  const agent = new Program("agent", config, join(dir, "agent.log"));
  t.after(async () => {
    await agent.kill();
    await removeFolder(dir);
  });
  const { addresses } = await agent.ready;
  const text = await (await fetch(`${addresses?.http}/metrics`)).text();
  const told = [...text.matchAll(/^# HELP (headwater_\w+)/gm)].map(([, name]) => name!);
  const page = await readFile("docs/reference/agent-status.md", "utf8");
  const documented = [...page.matchAll(/^\| `(headwater_\w+)` \|/gm)].map(([, name]) => name!);
  assert.ok(told.length > 40, `${told.length} metrics`);
  assert.deepEqual(
    documented.filter((name) => told.includes(name) || !ELSEWHERE.test(name)).toSorted(),
    told.toSorted(),
  );
});
