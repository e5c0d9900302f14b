import assert from "node:assert/strict";
import test from "node:test";
import type { FootageBuffer, FootageGap, RecordedUnit } from "../../../../agent/buffer/footage-buffer.ts";
import { ArrivalClock } from "../../../../agent/sources/camera/arrival-clock.ts";
import { FootageRecorder, type Timing } from "../../../../agent/sources/camera/footage-recorder.ts";
import { encodeUnit, MAX_UNIT_BYTES } from "../../../../protocol/footage.ts";
import { encodeSenderReport } from "../../../../protocol/rtsp/rtcp.ts";
import { encodeRtp } from "../../../../protocol/rtsp/rtp.ts";
import { parseSdp } from "../../../../protocol/rtsp/sdp.ts";
import { silentLog } from "../../../../runtime/log.ts";
import { Metrics } from "../../../../runtime/metrics.ts";
import { SDP } from "../../buffer/footage/made-unit.ts";

const START_US = 1_767_225_600_000_000;
const KEY = 0x65;
const DEPENDENT = 0x41;
const SPS = 0x67;

/** What was handed to the buffer is there, as far as the disk lets it. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

class Bench {
  nowUs = START_US;
  readonly units: RecordedUnit[] = [];
  readonly gaps: FootageGap[] = [];
  /** When each unit began of which was told how it ended, in ms; and whether it was stored. */
  readonly ended: [ms: number, stored: boolean][] = [];
  /** What append waits for. */
  disk: Promise<void> = Promise.resolve();
  readonly recorder: FootageRecorder;
  #sequence = 0;

  constructor(timing: Timing = { from: "arrival", picturesLate: 0 }) {
    const buffer = {
      append: async (unit: RecordedUnit) => {
        await this.disk;
        this.units.push(unit);
        return { epoch: 1n, sequence: BigInt(this.units.length) };
      },
      reportGap: (gap: FootageGap) => this.gaps.push(gap),
    };
    this.recorder = new FootageRecorder({
      camera: "yard",
      sdp: SDP,
      description: parseSdp(SDP),
      buffer: buffer as unknown as FootageBuffer,
      clock: { nowUs: () => this.nowUs, monotonicMs: () => this.nowUs / 1_000 },
      log: silentLog,
      metrics: new Metrics(),
      timing,
      onUnit: ({ producerUs }, isStored) =>
        this.ended.push([Math.round((producerUs - START_US) / 1_000), isStored]),
    });
  }

  /** One packet of the picture at `ms`. */
  packet(nal: number, ms: number, bytes = 100): void {
    const payload = Buffer.alloc(bytes, 0x80);
    payload[0] = nal;
    const timestamp = (0xffff_f000 + ms * 90) >>> 0;
    const fields = { marker: true, payloadType: 96, sequence: this.#sequence++ & 0xffff, timestamp, ssrc: 7 };
    this.recorder.packet(0, encodeRtp(fields, payload));
  }

  /** Pictures of 100 ms that arrive `delayMs` after they were made. */
  async group(fromMs: number, pictures: number, delayMs = 5): Promise<void> {
    for (let i = 0; i < pictures; i++) {
      const ms = fromMs + i * 100;
      this.nowUs = Math.max(this.nowUs, START_US + (ms + delayMs) * 1_000);
      if (i === 0) this.packet(SPS, ms, 20);
      this.packet(i === 0 ? KEY : DEPENDENT, ms);
      await settled();
    }
  }
}

test("a unit is a group of pictures with the parameter sets ahead of its key frame", async () => {
  const bench = new Bench();
  for (const fromMs of [0, 1_000, 2_000]) await bench.group(fromMs, 10);
  await bench.recorder.close();
  assert.deepEqual(
    bench.units.map(({ packets, startsWithKeyFrame }) => [packets.length, startsWithKeyFrame]),
    [
      [11, true],
      [11, true],
      [11, true],
    ],
  );
  assert.equal(bench.units[1]?.packets[0]?.rtp[12], SPS);
  assert.equal(bench.units[1]!.endUs - bench.units[1]!.producerUs, 900_000);
  assert.deepEqual(bench.gaps, []);
});

test("a long group of pictures is cut after 10 s, between two pictures", async () => {
  const bench = new Bench();
  await bench.group(0, 250);
  await bench.recorder.close();
  assert.deepEqual(
    bench.units.map(({ packets, startsWithKeyFrame }) => [packets.length, startsWithKeyFrame]),
    [
      [101, true],
      [100, false],
      [50, false],
    ],
  );
});

test("a unit stays below 8 MiB and ends between two pictures", async () => {
  const bench = new Bench();
  bench.packet(KEY, 0, 60_000);
  for (let picture = 1; picture < 60; picture++) {
    for (let i = 0; i < 5; i++) bench.packet(DEPENDENT, picture * 10, 60_000);
    await settled();
  }
  await bench.recorder.close();
  assert.ok(bench.units.length > 1);
  const times = bench.units.map(({ packets }) => new Set(packets.map(({ rtp }) => rtp.readUInt32BE(4))));
  const pictures = times.reduce((sum, one) => sum + one.size, 0);
  assert.equal(pictures, 60);
  for (const unit of bench.units) {
    assert.ok(encodeUnit({ ...unit, epoch: 1n, sequence: 1n }).length <= MAX_UNIT_BYTES);
  }
});

test("a picture larger than a unit is cut all the same", async () => {
  const bench = new Bench();
  for (let i = 0; i < 200; i++) bench.packet(i === 0 ? KEY : DEPENDENT, 0, 60_000);
  await bench.recorder.close();
  assert.equal(bench.units.length, 2);
  assert.equal(
    bench.units.reduce((sum, { packets }) => sum + packets.length, 0),
    200,
  );
});

test("producer time is the arrival with the least delay, also for a burst at the beginning", async () => {
  const bench = new Bench();
  // The first second arrives at once, 900 ms late for its first picture.
  bench.nowUs = START_US + 900_000;
  await bench.group(0, 10);
  await bench.group(1_000, 10);
  await bench.group(2_000, 10, 40);
  await bench.group(3_000, 10);
  await bench.recorder.close();
  assert.deepEqual(
    bench.units.map(({ producerUs }) => Math.round((producerUs - START_US) / 1_000)),
    [5, 1_005, 2_005, 3_005],
  );
});

test("sender reports decide where they are trusted", async () => {
  const bench = new Bench({ from: "sender-reports" });
  const report = {
    ssrc: 7,
    utcUs: START_US - 3_600_000_000,
    rtpTime: 0xffff_f000,
    packetCount: 0,
    octetCount: 0,
  };
  bench.recorder.rtcp(0, Buffer.from([1, 2, 3]));
  bench.recorder.rtcp(0, encodeSenderReport(report));
  await bench.group(0, 10);
  await bench.group(1_000, 10);
  await bench.recorder.close();
  const [first, second] = bench.units;
  assert.ok(Math.abs(first!.producerUs - report.utcUs) <= 1);
  assert.ok(Math.abs(second!.producerUs - first!.producerUs - 1_000_000) <= 1);
  assert.equal(second!.clocks[0]?.utcUs, second!.producerUs);
});

for (const [what, jumpMs] of [
  ["forward", 20_000_000],
  ["back", -1_000_000],
  ["back a little", -5_000],
] as const) {
  test(`a camera whose times jump ${what} stays where it is in time`, async () => {
    const bench = new Bench();
    await bench.group(0, 10);
    await bench.group(1_000, 5);
    // In the middle of a group, which comes at its time all the same.
    for (let i = 0; i < 5; i++) {
      bench.nowUs = START_US + (1_505 + i * 100) * 1_000;
      bench.packet(DEPENDENT, 1_500 + i * 100 + jumpMs);
    }
    for (let i = 0; i < 10; i++) {
      bench.nowUs = START_US + (2_005 + i * 100) * 1_000;
      bench.packet(i === 0 ? KEY : DEPENDENT, 2_000 + i * 100 + jumpMs);
    }
    await settled();
    await bench.recorder.close();
    assert.deepEqual(
      bench.units.map(({ producerUs, endUs, packets }) => [
        Math.round((producerUs - START_US) / 1_000),
        Math.round((endUs - producerUs) / 1_000),
        packets.length,
      ]),
      [
        [5, 900, 11],
        [1_005, 400, 6],
        [1_505, 400, 5],
        [2_005, 900, 10],
      ],
    );
  });
}

test("pictures that are sent in another order than they are shown are no break", async () => {
  const bench = new Bench();
  // One a second: I P B B, and what leads in to the next key frame.
  for (const [nal, ms] of [
    [KEY, 0],
    [DEPENDENT, 3_000],
    [DEPENDENT, 1_000],
    [DEPENDENT, 2_000],
    [KEY, 6_000],
    [DEPENDENT, 4_000],
    [DEPENDENT, 5_000],
  ] as const) {
    bench.nowUs += 1_000_000;
    bench.packet(nal, ms);
  }
  await bench.recorder.close();
  assert.deepEqual(
    bench.units.map(({ packets }) => packets.length),
    [4, 3],
  );
});

test("a sender report is of the times before they began anew", async () => {
  const bench = new Bench({ from: "sender-reports" });
  const report = { ssrc: 7, utcUs: START_US, rtpTime: 0xffff_f000, packetCount: 0, octetCount: 0 };
  bench.recorder.rtcp(0, encodeSenderReport(report));
  await bench.group(0, 10);
  bench.nowUs = START_US + 1_005_000;
  bench.packet(KEY, 3_601_000);
  await bench.recorder.close();
  assert.equal(bench.units[1]?.producerUs, bench.nowUs);
});

test("units that the disk cannot take are dropped and reported, and memory stays bounded", async () => {
  const bench = new Bench();
  let diskReady = (): void => {};
  bench.disk = new Promise((resolve) => {
    diskReady = resolve;
  });
  for (let i = 0; i < 6; i++) await bench.group(i * 1_000, 10);
  assert.equal(bench.gaps.length, 3);
  diskReady();
  await bench.recorder.close();
  // Two that waited, and the last one, which close() gives its turn.
  assert.equal(bench.units.length, 3);
  assert.equal(bench.gaps.length, 3);
  assert.deepEqual(bench.ended, [
    [5, true],
    [1_005, true],
    [2_005, false],
    [3_005, false],
    [4_005, false],
    [5_005, true],
  ]);
  assert.ok(bench.gaps.every((gap) => gap.camera === "yard" && gap.toUs > gap.fromUs));
});

test("what is no RTP is passed over", async () => {
  const bench = new Bench();
  bench.recorder.packet(0, Buffer.alloc(3));
  bench.recorder.packet(9, Buffer.alloc(40, 0x80));
  bench.recorder.packet(0, Buffer.alloc(40, 0x00));
  await bench.group(0, 3);
  await bench.recorder.close();
  assert.equal(bench.units[0]?.packets.length, 4);
});

test("an arrival clock follows a set clock and a new stream", () => {
  const clock = new ArrivalClock(90_000);
  assert.equal(clock.utcUs(0), undefined);
  let nowUs = START_US;
  let ticks = 0;
  const run = (seconds: number): void => {
    for (let i = 0; i < seconds * 10; i++) {
      clock.note(ticks, nowUs);
      ticks = (ticks + 9_000) >>> 0;
      nowUs += 100_000;
    }
  };
  run(5);
  assert.ok(Math.abs(clock.utcUs(ticks)! - nowUs) < 1_000);
  nowUs += 3_600_000_000;
  run(9);
  assert.ok(Math.abs(clock.utcUs(ticks)! - nowUs) < 1_000, "set forward");
  nowUs -= 3_600_000_000;
  run(1);
  assert.ok(Math.abs(clock.utcUs(ticks)! - nowUs) < 1_000, "set back");
  ticks = (ticks + 90_000 * 1_000) >>> 0;
  run(1);
  assert.ok(Math.abs(clock.utcUs(ticks)! - nowUs) < 1_000, "a new stream");
});
