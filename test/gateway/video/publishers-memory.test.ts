/** What many publishers hold together: bounded, by fair shares, and one that is stuck holds nobody up for ever. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { encodeUnitBegin, encodeUnitEnd, parsePersisted, unitDigest } from "../../../protocol/footage.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { Relay } from "../../../protocol/rtsp/relay.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { pause } from "../../../runtime/backoff.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, unitsOf } from "../../support/h264-rtp.ts";
import { bufferBytes, heldAtMost, usedBytes } from "../../support/held-memory.ts";
import { archivedDigests } from "../../support/picture-digests.ts";
import { eventually } from "../../support/program.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const MIB = 1_048_576;
const DEADLINE_MS = 120_000;
const PASSWORD = "correct horse";
const BEGIN = { epoch: 1n, sequence: 1n, producerUs: 1, startsWithKeyFrame: true };

interface House {
  readonly video: VideoArchive;
  readonly metrics: Metrics;
  client(device: string, camera: string): Promise<RtspClient>;
}

async function openHouse(
  t: TestContext,
  devices: readonly string[],
  limits: { readonly maxMemoryBytes: number; readonly patienceMs: number },
): Promise<House> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-publishers-"));
  const metrics = new Metrics();
  const parts = { clock: systemClock, log: silentLog, metrics };
  const video = await openVideo({ ...parts, dir: join(dir, "video"), retentionHours: 1e6, maxBytes: 1e12 });
  const logins = devices.map((id) => ({ id, password: PASSWORD }));
  const door = { host: "127.0.0.1", port: 0, video, devices: logins };
  const ingest = new RtspIngest({ ...parts, ...door, ...limits });
  await ingest.start();
  t.after(async () => {
    await ingest.close();
    await video.close();
    await removeFolder(dir);
  });
  return {
    video,
    metrics,
    async client(device, camera) {
      const client = new RtspClient({
        url: `rtsp://127.0.0.1:${ingest.port}/${device}/${camera}`,
        credentials: { username: device, password: PASSWORD },
      });
      t.after(() => client.close());
      await client.connect();
      return client;
    },
  };
}

async function startRecording(client: RtspClient, sdp: string): Promise<void> {
  await client.announce(sdp);
  await client.setup("record");
  await client.record();
}

/** The newest number of a metric without labels. */
async function numberOf(metrics: Metrics, name: string): Promise<number> {
  const line = (await metrics.render()).split("\n").find((one) => one.startsWith(`${name} `));
  return Number(line?.split(" ")[1] ?? Number.NaN);
}

/**
 * Fragments of one NAL unit that never ends. All senders share these bytes, so that what grows is what the gateway
 * holds, though it lives in the same process.
 */
const ENDLESS = Array.from({ length: 100 }, (_, sequence) => {
  const part = Buffer.alloc(60_000, 7);
  part[0] = 0x7c;
  part[1] = sequence === 0 ? 0x85 : 0x05;
  return encodeRtp({ marker: false, payloadType: 96, sequence, timestamp: 1, ssrc: 1 }, part);
});
const ENDLESS_BYTES = ENDLESS.reduce((sum, { length }) => sum + length, 0);

/** In a unit that never ends. */
function sendEndless(client: RtspClient): void {
  client.sendRtcp(0, encodeUnitBegin(1, BEGIN));
  for (const rtp of ENDLESS) client.sendRtp(0, rtp);
}

async function sendWhole(
  client: RtspClient,
  sdp: string,
  unit: ReturnType<typeof unitsOf>[number],
): Promise<void> {
  await startRecording(client, sdp);
  client.sendRtcp(0, encodeUnitBegin(1, unit));
  for (const { track, rtp } of unit.packets) client.sendRtp(track, rtp);
  const sha256 = unitDigest(unit.packets);
  client.sendRtcp(0, encodeUnitEnd(1, { packetCount: unit.packets.length, sha256 }));
}

test("publishers whose units never end hold no more than they may together, and others' footage is stored", async (t) => {
  const maxMemoryBytes = 60 * MIB;
  const devices = ["honest", "bad-0", "bad-1", "bad-2", "bad-3"];
  const { metrics, client } = await openHouse(t, devices, { maxMemoryBytes, patienceMs: 1e9 });
  const clip = await makeClip(15);
  const before = bufferBytes();
  const bad: RtspClient[] = [];
  for (let n = 0; n < 32; n++) {
    bad.push(await client(`bad-${n % 4}`, `camera-${n}`));
    await startRecording(bad[n]!, clip.sdp);
  }
  for (const one of bad) sendEndless(one);
  await eventually("all of them are held up", DEADLINE_MS, async () =>
    (await numberOf(metrics, "headwater_rtsp_memory_pauses_total")) >= 4 ? true : undefined,
  );
  const [unit] = unitsOf(clip, 7n, systemClock.nowUs());
  const honest = await client("honest", "yard");
  await sendWhole(honest, clip.sdp, unit!);
  await eventually("the other's unit is stored", DEADLINE_MS, async () => {
    const ranges = parsePersisted((await honest.getParameter("persisted"))!);
    return ranges.length === 1 ? true : undefined;
  });
  const counted = await numberOf(metrics, "headwater_rtsp_memory_bytes");
  assert.ok(counted < maxMemoryBytes && counted > maxMemoryBytes / 4, `${counted} bytes are counted`);
  assert.ok(bad.length * ENDLESS_BYTES > 2 * maxMemoryBytes);
  await heldAtMost(maxMemoryBytes, before);
});

test("a unit that never ends makes room in the end, and the others' units are stored", async (t) => {
  const { metrics, client, video } = await openHouse(t, ["one", "two"], {
    maxMemoryBytes: 12 * MIB,
    patienceMs: 200,
  });
  const clip = await makeClip(30);
  const stuck = await client("one", "stuck");
  await startRecording(stuck, clip.sdp);
  sendEndless(stuck);
  await eventually("it is disconnected", DEADLINE_MS, async () =>
    (await numberOf(metrics, "headwater_rtsp_memory_ended_total")) === 1 ? true : undefined,
  );
  const [unit] = unitsOf(clip, 7n, systemClock.nowUs());
  const honest = await client("two", "yard");
  await sendWhole(honest, clip.sdp, unit!);
  await eventually("the other's unit is stored", DEADLINE_MS, async () =>
    video.cameras().find(({ camera }) => camera === "yard")?.fragments === 1 ? true : undefined,
  );
});

test("where memory is scarce a camera's units are cut short, and every picture is stored", async (t) => {
  const { video } = await openHouse(t, [], { maxMemoryBytes: 1e12, patienceMs: 1e9 });
  const clip = await makeClip(45);
  const feed = video.openFeed("yard", clip.sdp, undefined, { holds() {}, isScarce: true });
  for (const { packets } of unitsOf(clip, 1n, 1_800_000_000_000_000)) {
    for (const { track, rtp } of packets) feed.packet(track, rtp);
  }
  await feed.close();
  assert.equal((await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 100)).length, 6);
  const sent = clip.pictures.map(({ vclSha256 }) => vclSha256);
  assert.deepEqual(await archivedDigests(video, "yard"), sent);
});

test("a relay that nobody reads keeps one group of pictures for joiners, not two", async () => {
  const clip = await makeClip(60);
  const relay = new Relay({ sdp: clip.sdp });
  const sizes: number[] = [];
  for (const { packets } of unitsOf(clip, 1n, 1)) {
    for (const { rtp } of packets) relay.packet(0, rtp);
    sizes.push(packets.reduce((sum, { rtp }) => sum + rtp.length + 256, 0));
    assert.equal(relay.heldBytes, sizes.at(-1));
  }
  assert.equal(sizes.length, 4);
});

/** Once nothing more of it is let go of. */
async function settledBytes(): Promise<number> {
  for (let least = usedBytes(); ; ) {
    await pause(50);
    const now = usedBytes();
    if (now > least - 65_536) return Math.min(now, least);
    least = now;
  }
}

/** What the camera's live view keeps for joiners, which has a bound of its own (live-memory.ts): 6.4 MB of samples here. */
const BESIDE_BYTES = 12 * MIB;

/** @throws when a feed holds more than it told */
async function checkTold(t: TestContext, packets: () => Iterable<Buffer>, bracketed: boolean): Promise<void> {
  const { video } = await openHouse(t, [], { maxMemoryBytes: 1e12, patienceMs: 1e9 });
  const clip = await makeClip(1);
  let told = 0;
  const holds = (openBytes: number, waitingBytes: number): void => {
    told = openBytes + waitingBytes;
  };
  // The first time is for V8, which makes code of what runs often, and keeps it.
  for (const camera of ["first", "yard"]) {
    const before = await settledBytes();
    const feed = video.openFeed(camera, clip.sdp, undefined, { holds, isScarce: false });
    const [unit] = unitsOf(clip, 3n, 1);
    for (const { rtp } of unit!.packets) feed.packet(0, rtp);
    if (bracketed) feed.rtcp(0, encodeUnitBegin(1, BEGIN));
    for (const rtp of packets()) feed.packet(0, rtp);
    if (camera === "yard") await heldAtMost(told + BESIDE_BYTES, before, usedBytes);
    await feed.close();
    assert.equal(told, 0);
  }
}

function rtpOf(payload: Buffer, n: number): Buffer {
  return encodeRtp({ marker: true, payloadType: 96, sequence: n, timestamp: n, ssrc: 1 }, payload);
}

function* tinyPictures(): Generator<Buffer> {
  for (let n = 0; n < 60_000; n++) yield rtpOf(Buffer.of(0x41, n & 0xff), n);
}

/** Aggregation packets, each a picture of NAL units of one byte. */
function* crumbs(): Generator<Buffer> {
  for (let n = 0; n < 300; n++) {
    const payload = Buffer.alloc(1 + 4_000 * 3);
    payload[0] = 24;
    for (let at = 1; at < payload.length; at += 3) payload.set([0, 1, 0x41], at);
    yield rtpOf(payload, n);
  }
}

for (const [name, packets] of [
  ["of one NAL unit of two bytes", tinyPictures],
  ["of thousands of NAL units of one byte", crumbs],
] as const) {
  for (const bracketed of [true, false]) {
    test(`pictures ${name} count as what they hold, ${bracketed ? "of an agent" : "of a camera"}`, async (t) => {
      await checkTold(t, packets, bracketed);
    });
  }
}
