/** What is expected of a page, against shards as either store describes them. */
import assert from "node:assert/strict";
import test from "node:test";
import { expectedBytes } from "../../../../../gateway/api/kinesis/pages/expected-page.ts";

const LIMITS = { records: 10_000, dataBytes: 10_485_760 };
/** 1,000 records of 3,000 bytes are left of 5,000. */
const shard = { trimHorizon: 4_000, latest: 5_000, storedBytes: 3_000_000, appendedRecords: 5_000 };

test("a page is expected to be as large as what is left of its shard, up to its limits", () => {
  assert.equal(expectedBytes(shard, 5_000, LIMITS), 0);
  assert.equal(expectedBytes(shard, 4_000, LIMITS), 1_000 * (4_000 + 192));
  assert.equal(expectedBytes(shard, 0, LIMITS), 1_000 * (4_000 + 192), "what is trimmed is not read");
  assert.equal(expectedBytes(shard, 4_990, LIMITS), 10 * (4_000 + 192));
  assert.equal(expectedBytes(shard, 4_000, { ...LIMITS, records: 7 }), 7 * (4_000 + 192));
  assert.equal(expectedBytes(shard, 4_000, { ...LIMITS, dataBytes: 30_000 }), 10 * (4_000 + 192));
});

test("of places without records, and of bytes that are not counted, no page is expected to be too small", () => {
  // A message of the cluster has 1,000 places, whether it has one record or many.
  const sparse = { trimHorizon: 0, latest: 1_000_000, storedBytes: 3_000_000, appendedRecords: 1_000 };
  assert.equal(expectedBytes(sparse, 0, { ...LIMITS, records: 100 }), 100 * (4_000 + 192));
  assert.equal(expectedBytes(sparse, 990_000, LIMITS), 10 * (4_000 + 192));
  const closed = { ...shard, storedBytes: 0 };
  assert.equal(expectedBytes(closed, 4_000, LIMITS), Math.ceil((10_485_760 * 4) / 3 + 10_000 * 192));
});
