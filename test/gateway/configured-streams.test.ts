import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { parseConfig } from "../../config/loader.ts";
import { missingStreams, prepareStreams } from "../../gateway/configured-streams.ts";
import type { Log } from "../../runtime/log.ts";
import { nodeFlags, scriptPath } from "../support/script.ts";
import { makeLocalPlace } from "./streams/stores/local/local-place.ts";

const streamsOf = (yaml: string) => parseConfig("test.yaml", yaml, gatewayConfig, {}).streams;

test("streams are made as configured, later changes are applied, and shards are left alone", async () => {
  const place = await makeLocalPlace();
  const streams = await place.open();
  const logged: string[] = [];
  const note = (fields: object, text: string): void => void logged.push(JSON.stringify([fields, text]));
  const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };
  try {
    await prepareStreams(
      streams,
      streamsOf("streams: [{name: a, shards: 2}, {name: b, onDemand: true}]"),
      log,
    );
    const { mode, retentionHours, limits, shardList } = streams.describe("a");
    assert.deepEqual([mode, retentionHours, limits, shardList.length], ["provisioned", 24, "none", 2]);
    assert.equal(streams.describe("b").mode, "on-demand");
    assert.equal(streams.describe("b").shardList.length, 4);
    await streams.updateStream("a", { retentionHours: 48 });
    await prepareStreams(
      streams,
      streamsOf("streams: [{name: a, shards: 3, limits: aws, maxRecordKiB: 2048}]"),
      log,
    );
    const after = streams.describe("a");
    assert.equal(after.retentionHours, 48, "what the config leaves out stays as the API set it");
    assert.deepEqual([after.limits, after.maxRecordBytes, after.shardList.length], ["aws", 2_097_152, 2]);
    assert.equal(logged.filter((line) => line.includes("it is not resharded")).length, 1);
    assert.equal(logged.filter((line) => line.includes("the config changes a stream")).length, 1);
  } finally {
    await streams.close();
    await place.remove();
  }
});

test("a stream has shards or is on demand, and the store is one that there is", () => {
  assert.throws(
    () => streamsOf("streams: [{name: a, shards: 2, onDemand: true}]"),
    /shards or onDemand, not both/,
  );
  assert.throws(() => streamsOf("store: {jetstream: {servers: []}}"), /store\.jetstream\.servers/);
  assert.throws(() => streamsOf("store: redis"), /store/);
});

test("--check warns of streams that the config names and does not make, unless it makes none", async () => {
  const folder = await mkdtemp(join(tmpdir(), "headwater-check-"));
  const file = join(folder, "gateway.yaml");
  const main = scriptPath("../../gateway/main.ts", import.meta.url);
  const warned = async (streams: string): Promise<string> => {
    await writeFile(
      file,
      `${streams}
rules: [{topic: "a/#", stream: readings}, {topic: "b/#", stream: reedings}]
delivery: [{name: d, stream: readigns, destination: {type: files, path: out}}, {name: e, stream: headwater-gaps, destination: {type: files, path: out2}}]
`,
    );
    const run = spawnSync(process.execPath, [...nodeFlags, main, "--config", file, "--check"]);
    assert.equal(run.status, 0, String(run.stderr));
    assert.match(String(run.stdout), / is good/);
    return String(run.stderr);
  };
  try {
    assert.match(
      await warned("streams: [{name: readings}]"),
      /^rules\[1\]\.stream: warning: streams has no reedings; .*\ndelivery\[0\]\.stream: warning: streams has no readigns; [^\n]*\n$/,
    );
    assert.equal(await warned("streams: []"), "");
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("streams that a rule, a delivery or a statement names, and that are not there, are found by their paths", () => {
  const config = parseConfig(
    "test.yaml",
    "rules: [{topic: '#', stream: a}]\ndelivery: [{name: d, stream: b, destination: {type: files, path: o}}]",
    gatewayConfig,
    {},
  );
  assert.deepEqual(missingStreams(config, [["a", "c"]], ["b"]), [
    { path: "rules[0].stream", stream: "a" },
    { path: "analytics[0].sql", stream: "a" },
    { path: "analytics[0].sql", stream: "c" },
  ]);
});
