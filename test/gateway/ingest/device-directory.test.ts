import assert from "node:assert/strict";
import test from "node:test";
import { DeviceDirectory } from "../../../gateway/ingest/device-directory.ts";
import { systemClock } from "../../../runtime/clock.ts";

test("frames that never came are counted; those that one stream stored before another are not", () => {
  const directory = new DeviceDirectory([], systemClock);
  const stored = (sequence: bigint, epoch = 7n): void => directory.frame("pi", epoch, sequence, 1, "stored");
  const missed = (): number => directory.list()[0]!.missedFrames;
  // Frames of one epoch go to several streams, each with an fdatasync of its own.
  for (const sequence of [1n, 3n, 2n, 5n, 6n, 4n, 7n]) stored(sequence);
  assert.equal(missed(), 0);
  stored(10n);
  assert.equal(missed(), 2);
  directory.frame("pi", 7n, 9n, 1, "duplicate");
  assert.equal(missed(), 2);
  stored(11n);
  // Another epoch begins anew.
  stored(1n, 8n);
  stored(2n, 8n);
  assert.equal(missed(), 2);
});
