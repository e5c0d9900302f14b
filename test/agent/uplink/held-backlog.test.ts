import assert from "node:assert/strict";
import test from "node:test";
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { Lanes } from "../../../agent/uplink/lanes.ts";
import { uplinkMeters } from "../../../agent/uplink/uplink-meters.ts";
import { decodeFrames, type Frame } from "../../../protocol/frame.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { openBuffer, record, temporaryFolder, texts } from "../buffer/records/buffer-fixture.ts";
import { StandInRules } from "./stand-in-rules.ts";

/** A buffer on a disk so slow that what is held takes longer to look through than what makes a backlog. */
class SlowDisk implements Clock {
  aheadUs = 0;
  /** How often somebody began at the oldest frame. */
  passes = 0;

  nowUs(): number {
    return systemClock.nowUs() + this.aheadUs;
  }

  monotonicMs(): number {
    return this.nowUs() / 1_000;
  }

  slow(buffer: RecordBuffer): RecordBuffer {
    const read = buffer.read.bind(buffer);
    buffer.read = async (after, maxBytes) => {
      if (after === undefined) this.passes++;
      const frames = await read(after, maxBytes);
      if (frames.some(({ stream }) => stream === "bulk")) {
        this.aheadUs += 100_000;
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
      return frames;
    };
    return buffer;
  }
}

test("a backlog that may not go is not read again and again while live records pass it", async (t) => {
  const disk = new SlowDisk();
  const buffer = await openBuffer(await temporaryFolder(t), { clock: disk, partBytes: 65_536 });
  for (let n = 0; n < 60; n++)
    await buffer.append(Array.from({ length: 10 }, () => record("held".padEnd(500), "k", "bulk")));
  const sent: Frame[] = [];
  const end = new AbortController();
  const lanes = new Lanes({
    buffer: disk.slow(buffer),
    clock: disk,
    meters: uplinkMeters(new Metrics(), () => ({ connected: true, inFlightBytes: 0, split: false })),
    progress: { liveTo: undefined },
    liveFirst: new Set(["live"]),
    publishBytes: 8_000,
    windowBytes: 40_000,
    rules: new StandInRules({ held: ["bulk"] }),
    packer: () => ({
      async pack(frames) {
        const payload = Buffer.concat(frames.map(({ bytes }) => bytes));
        return { payload, frameBytes: payload.length };
      },
    }),
    publish: (payload, acknowledged) => {
      sent.push(...decodeFrames(payload));
      setImmediate(acknowledged);
    },
    onProgress: () => {},
    onForgotten: async () => {},
    onFailure: (error) => {
      throw error;
    },
  });
  const ended = lanes.run(end.signal);
  const from = disk.aheadUs;
  for (let n = 0; n < 80; n++) {
    await buffer.append([record(`${n}`, "k", "live")]);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  while (texts(sent, "live").length < 80) await new Promise((resolve) => setTimeout(resolve, 2));
  const minutes = (disk.aheadUs - from) / 60_000_000;
  end.abort();
  await ended;
  assert.deepEqual(new Set(texts(sent)), new Set(Array.from({ length: 80 }, (_, n) => `${n}`)));
  assert.ok(disk.passes <= 4 + minutes, `${disk.passes} times in ${minutes} minutes`);
  await buffer.close();
});
