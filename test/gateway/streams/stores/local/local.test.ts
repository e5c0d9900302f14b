import assert from "node:assert/strict";
import test from "node:test";
import type { OpenStreams } from "../../../../contract/stream-records.ts";
import { streamsContract } from "../../../../contract/streams.ts";
import { makeLocalPlace } from "./local-place.ts";

streamsContract("local", makeLocalPlace);
streamsContract("local, recycled segments", async () => {
  const place = await makeLocalPlace();
  const open: OpenStreams = (more) => place.open({ ...more, segmentBytes: 600, recycleSegments: "filled" });
  return { open, remove: place.remove };
});
streamsContract("local, tiny segments", async () => {
  const place = await makeLocalPlace();
  const open: OpenStreams = (more) => place.open({ ...more, segmentBytes: 600 });
  return { open, remove: place.remove };
});

test("local: a reader that is registered while its predecessor is being deregistered is dated behind it", async (t) => {
  const place = await makeLocalPlace();
  place.nowMs = 1_790_000_000_000;
  const streams = await place.open();
  t.after(async () => {
    await streams.close();
    await place.remove();
  });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const first = await streams.registerReader("s", "r", {});
  const gone = streams.deregisterReader("s", "r");
  const second = await streams.registerReader("s", "r", {});
  await gone;
  assert.equal(second.createdMs, first.createdMs + 1_000);
});
