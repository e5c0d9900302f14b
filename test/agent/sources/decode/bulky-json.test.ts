import assert from "node:assert/strict";
import test from "node:test";
import { decodeJsonBatch } from "../../../../agent/sources/decode/json-batch.ts";
import { lineDecoder } from "../../../../agent/sources/decode/line-decoder.ts";
import { decodePublish } from "../../../../agent/sources/decode/publish.ts";
import type { Decoded } from "../../../../agent/sources/source.ts";

const BYTES = 262_144;
const NESTED = {
  brackets: "[".repeat(BYTES),
  lists: `${"[".repeat(BYTES / 2)}${"]".repeat(BYTES / 2)}`,
  objects: `${'{"a":'.repeat(BYTES / 8)}1${"}".repeat(BYTES / 8)}`,
};

/** Each way in which JSON comes into the agent. */
const WAYS: Readonly<Record<string, (text: string) => Decoded>> = {
  publish: (text) => decodePublish("room/one", Buffer.from(text), 0),
  tasmota: (text) => decodePublish("tele/plug/SENSOR", Buffer.from(text), 0),
  zigbee2mqtt: (text) => decodePublish("zigbee2mqtt/door", Buffer.from(text), 0),
  discovery: (text) => decodePublish("homeassistant/sensor/x/config", Buffer.from(text), 0),
  line: (text) => lineDecoder("json-lines", "board").decode(Buffer.from(text), 0),
  posted: (text) => decodeJsonBatch("json", text, "board", 0),
  "posted lines": (text) => decodeJsonBatch("lines", text, "board", 0),
  senml: (text) => decodeJsonBatch("senml", text, "board", 0),
};

for (const [way, decode] of Object.entries(WAYS)) {
  test(`${way}: what is nested endlessly is refused unparsed`, (t) => {
    const parse = t.mock.method(JSON, "parse");
    for (const [name, text] of Object.entries(NESTED)) {
      assert.match(decode(text).reason ?? "", /nested deeper than 34/, name);
    }
    assert.equal(parse.mock.callCount(), 0);
  });
}

test("more readings than a sensor's are refused unparsed, and a long one of little structure is read", (t) => {
  const parse = t.mock.method(JSON, "parse");
  const many = `[${"{},".repeat(500_001)}{}]`;
  assert.match(decodeJsonBatch("json", many, "board", 0).reason ?? "", /more than 500000 arrays/);
  assert.equal(parse.mock.callCount(), 0);
  const wave = JSON.stringify({
    samples: Array.from({ length: 50_000 }, (_, i) => i),
    note: "[{".repeat(9_000),
  });
  assert.equal(decodePublish("room/one", Buffer.from(wave), 0).readings?.length, 1);
});
