/** Puts that name the record before them, where the clock is set while they come. */
import assert from "node:assert/strict";
import test from "node:test";
import { formatSequenceNumber, parseSequenceNumber } from "../../../../../gateway/streams/streams.ts";
import { openFixture, StillClock } from "../../api-fixture.ts";
import { call } from "../../sign.ts";

const AHEAD_MS = 3_600_000;

test("a number that the stream gave out orders the next put, also after the clock was set back", async (t) => {
  const clock = new StillClock();
  const { origin, streams, close } = await openFixture({ clock });
  t.after(close);
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  // Not by the port: a signature's date must be near to the gateway's clock.
  clock.aheadMs = AHEAD_MS;
  const [{ offset, arrivalMs } = assert.fail()] = await streams.append("s", [
    { partitionKey: "k", data: Buffer.from("x") },
  ]);
  clock.aheadMs = 0;
  const shardCreatedMs = streams.shard("s", 0).createdMs;
  let number = formatSequenceNumber({ shardCreatedMs, shardIndex: 0, offset, arrivalMs });
  const put = (SequenceNumberForOrdering: string) =>
    call(
      origin,
      "PutRecord",
      JSON.stringify({ StreamName: "s", PartitionKey: "k", Data: "", SequenceNumberForOrdering }),
    );
  for (let i = 0; i < 3; i++) {
    const { status, json, message } = await put(number);
    assert.equal(status, 200, message);
    number = (json as { SequenceNumber: string }).SequenceNumber;
  }
  const last = parseSequenceNumber(number);
  const strange = [
    { ...last, offset: last.offset + 1 },
    { ...last, shardCreatedMs: last.shardCreatedMs + 1_000 },
    { ...last, shardIndex: 1 },
  ];
  for (const parts of strange) {
    assert.equal((await put(formatSequenceNumber(parts))).type, "InvalidArgumentException");
  }
});
