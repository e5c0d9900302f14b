import assert from "node:assert/strict";
import test from "node:test";
import { gunzipSync } from "node:zlib";
import { LineWriter, type RecordPlace } from "../../../gateway/delivery/ndjson.ts";

const place = (): RecordPlace => ({
  ...{ stream: "s", shardId: "shardId-000000000000", offset: 1, sequenceNumber: "1" },
  ...{ arrivalMs: 0, timeUs: 0, partitionKey: "k" },
});

async function written(
  payload: string,
): Promise<{ delivered: string | undefined; reason: string | undefined }> {
  const writer = new LineWriter();
  writer.add(Buffer.from(payload), place);
  await writer.drain();
  const { delivered, failed } = await writer.finish();
  const line = failed === undefined ? undefined : gunzipSync(failed).toString();
  return {
    delivered: delivered === undefined ? undefined : gunzipSync(delivered).toString(),
    reason: line === undefined ? undefined : /"reason":"([^"]*)"/.exec(line)?.[1],
  };
}

test("whatever JSON a record is, it becomes a line without being parsed", async (t) => {
  const parse = t.mock.method(JSON, "parse");
  const deep = `${"[".repeat(500_000)}${"]".repeat(500_000)}`;
  for (const json of ['{"a":1e400}', ' [1, "x"] ', "0", deep, `[${"{},".repeat(300_000)}0]`]) {
    assert.deepEqual(await written(json), { delivered: `${json}\n`, reason: undefined });
  }
  assert.equal(parse.mock.callCount(), 0);
});

test("what is no JSON goes to the error output with its reason, whatever it is", async (t) => {
  const parse = t.mock.method(JSON, "parse");
  const endless = "[".repeat(2 * 1_048_576);
  for (const [payload, reason] of [
    ["", "empty"],
    ['{"a":1}{"b":2}', "not JSON: wrong at byte 7"],
    ["{'a':1}", "not JSON: wrong at byte 1"],
    ["\ufeff1", "not JSON: wrong at byte 0"],
    [endless, "not JSON: it ends too soon"],
  ] as const) {
    assert.deepEqual(await written(payload), { delivered: undefined, reason });
  }
  assert.equal(parse.mock.callCount(), 0);
});
