import assert from "node:assert/strict";
import test from "node:test";
import { RequestIds } from "../../../gateway/api/request-ids.ts";

test("ids have the form of UUIDs and none comes again, also from another start", () => {
  const ids = new Set<string>();
  for (let start = 0; start < 10; start++) {
    const made = new RequestIds();
    for (let i = 0; i < 1_000; i++) ids.add(made.next());
  }
  assert.equal(ids.size, 10_000);
  for (const id of ids)
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
