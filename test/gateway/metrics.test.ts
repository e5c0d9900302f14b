import assert from "node:assert/strict";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { freePorts, Program } from "../support/program.ts";
import { removeFolder } from "../support/remove-folder.ts";

/** Those of a store, and of the doors with TLS, that this gateway does not have. */
const OF_OTHER_PARTS = /^headwater_(jetstream|identity|tls)_/;

test("docs/reference/metrics.md names what a gateway tells of itself, and nothing else", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "headwater-metrics-"));
  const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
  const config = join(dir, "gateway.yaml");
  await writeFile(
    config,
    `
dataDir: data
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
streams: [{ name: s, shards: 1 }]
delivery: [{ name: files, stream: s, destination: { type: files, path: files } }]
`,
  );
  const gateway = new Program("gateway", config, join(dir, "gateway.log"));
  t.after(async () => {
    await gateway.kill();
    await removeFolder(dir);
  });
  await gateway.ready;
  const text = await (await fetch(`http://127.0.0.1:${http}/metrics`)).text();
  const told = [...text.matchAll(/^# HELP (\S+)/gm)].map(([, name]) => name!);
  const page = await readFile("docs/reference/metrics.md", "utf8");
  const documented = new Set([...page.matchAll(/^\| `(headwater_\w+)` \|/gm)].map(([, name]) => name!));
  assert.ok(
    told.includes("process_resident_memory_bytes") && told.includes("nodejs_eventloop_lag_p99_seconds"),
  );
  const ours = told.filter((name) => name.startsWith("headwater_"));
  assert.ok(ours.length > 40, `${ours.length} metrics`);
  assert.deepEqual(
    ours.filter((name) => !documented.has(name)),
    [],
    "told and not documented",
  );
  assert.deepEqual(
    [...documented].filter((name) => !ours.includes(name) && !OF_OTHER_PARTS.test(name)),
    [],
    "documented and not told",
  );
});
