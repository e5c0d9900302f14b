import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { promisify } from "node:util";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { encodeUnitBegin, encodeUnitEnd, parsePersisted, unitDigest } from "../../../protocol/footage.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip, unitsOf } from "../../support/h264-rtp.ts";
import { archivedDigests, pictureDigests } from "../../support/picture-digests.ts";
import { removeFolder } from "../../support/remove-folder.ts";

const run = promisify(execFile);
const DEVICES = [
  { id: "pi-1", password: "correct horse" },
  { id: "pi-2", password: "battery staple" },
];

interface House {
  readonly dir: string;
  readonly video: VideoArchive;
  readonly ingest: RtspIngest;
  url(path: string, login?: string): string;
}

async function makeHouse(t: TestContext, devices: typeof DEVICES = []): Promise<House> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-rtsp-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir: join(dir, "video"), retentionHours: 1e6, maxBytes: 1e12 });
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices });
  await ingest.start();
  t.after(async () => {
    await ingest.close();
    await video.close();
    await removeFolder(dir);
  });
  return {
    dir,
    video,
    ingest,
    url: (path, login) => `rtsp://${login === undefined ? "" : `${login}@`}127.0.0.1:${ingest.port}/${path}`,
  };
}

function ffmpeg(t: TestContext, ...args: string[]): { child: ChildProcess; done: Promise<number | null> } {
  const child = spawn("ffmpeg", ["-v", "error", "-nostdin", ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const done = once(child, "exit").then(([code]) => code as number | null);
  t.after(() => child.kill("SIGKILL"));
  return { child, done };
}

async function makeSource(path: string, frames: number, ...encoder: string[]): Promise<void> {
  const input = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=15", "-frames:v", String(frames)];
  await run("ffmpeg", [
    "-v",
    "error",
    ...input,
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-g",
    "15",
    ...encoder,
    path,
  ]);
}

async function framemd5(...input: string[]): Promise<string[]> {
  const { stdout } = await run("ffmpeg", [
    "-v",
    "error",
    ...input,
    "-vsync",
    "passthrough",
    "-f",
    "framemd5",
    "-",
  ]);
  return stdout
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(",")[5]!.trim());
}

async function until(
  holds: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 60_000,
): Promise<void> {
  for (const endMs = performance.now() + timeoutMs; !(await holds()); ) {
    if (performance.now() > endMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

for (const [name, encoder] of [
  ["without B-frames", ["-bf", "0"]],
  ["with B-frames", ["-bf", "2"]],
  ["in H.265", ["-c:v", "libx265", "-x265-params", "log-level=error:keyint=15:min-keyint=15:open-gop=0"]],
] as const) {
  test(`what ffmpeg publishes ${name} is archived picture for picture`, async (t) => {
    const { dir, video, url } = await makeHouse(t);
    const source = join(dir, "source.mp4");
    await makeSource(source, 60, ...encoder);
    const published = ffmpeg(
      t,
      ...["-i", source, "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", url("porch")],
    );
    assert.equal(await published.done, 0);
    await until(() => video.cameras()[0]!.fragments === 4, "all is archived");
    const fragments = await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 100);
    assert.deepEqual(
      fragments.map((fragment) => fragment.state),
      ["whole", "whole", "whole", "whole"],
    );
    const list: string[] = [];
    for (const { id } of fragments) {
      const path = join(dir, `${list.length}.mp4`);
      await writeFile(path, (await video.readFragment("porch", id))!);
      const { stderr } = await run("ffprobe", ["-v", "warning", "-show_streams", path]);
      assert.equal(stderr, "");
      list.push(`file '${path}'`);
    }
    await writeFile(join(dir, "list"), list.join("\n"));
    const archived = await framemd5("-f", "concat", "-safe", "0", "-i", join(dir, "list"));
    assert.equal(archived.length, 60);
    assert.deepEqual(archived, await framemd5("-i", source));
  });
}

test("AAC sound is archived beside the pictures, in time with them", async (t) => {
  const { dir, video, url } = await makeHouse(t);
  const source = join(dir, "source.mp4");
  const inputs = "-f lavfi -i testsrc2=size=320x240:rate=15 -f lavfi -i sine=frequency=440:sample_rate=44100";
  const codecs = "-t 4 -c:v libx264 -preset veryfast -g 15 -bf 0 -c:a aac -ac 2";
  await run("ffmpeg", ["-v", "error", ...inputs.split(" "), ...codecs.split(" "), source]);
  const args = ["-i", source, "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", url("porch")];
  assert.equal(await ffmpeg(t, ...args).done, 0);
  await until(() => video.cameras()[0]!.fragments === 4, "all is archived");
  const sounds: string[] = [];
  for (const { id } of await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 100)) {
    const path = join(dir, `${id}.mp4`);
    await writeFile(path, (await video.readFragment("porch", id))!);
    const { stdout, stderr } = await run("ffprobe", [
      ..."-v warning -show_entries stream=codec_name,sample_rate,start_time -of csv=p=0".split(" "),
      path,
    ]);
    assert.equal(stderr, "");
    const [picture, sound] = stdout
      .trim()
      .split("\n")
      .map((line) => line.split(","));
    assert.deepEqual([picture![0], sound![0], sound![1]], ["h264", "aac", "44100"]);
    assert.ok(Math.abs(Number(picture!.at(-1)) - Number(sound!.at(-1))) < 0.2, stdout);
    assert.equal(pictureDigests((await video.readFragment("porch", id))!).length, 15);
    sounds.push(...(await framemd5("-i", path, "-map", "0:a", "-c", "copy")));
  }
  const sent = await framemd5("-i", source, "-map", "0:a", "-c", "copy");
  assert.deepEqual(sounds, sent.slice(0, sounds.length));
  // ffmpeg gathers up to five sounds a packet, and keeps the last ones to itself when it ends.
  assert.ok(sent.length - sounds.length < 5);
});

test("producer times follow the sender's reports", async (t) => {
  const { dir, video, url } = await makeHouse(t);
  const source = join(dir, "source.mp4");
  await makeSource(source, 30, "-bf", "0");
  const atUs = systemClock.nowUs() - 3_600_000_000;
  const args = ["-i", source, "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp"];
  const published = ffmpeg(t, ...args, "-start_time_realtime", String(atUs), url("porch"));
  assert.equal(await published.done, 0);
  await until(() => video.cameras()[0]!.fragments === 2, "all is archived");
  const [first, second] = await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 10);
  assert.ok(Math.abs(first!.producerUs - atUs) < 100_000, `${first!.producerUs - atUs} µs off`);
  assert.ok(Math.abs(second!.producerUs - first!.producerUs - 1_000_000) < 1_000);
});

test("an agent's units are persisted, listed, and stored once when they come again", async (t) => {
  const { video, url } = await makeHouse(t, DEVICES);
  const clip = await makeClip(45);
  const units = unitsOf(clip, 0xabcn, systemClock.nowUs());
  for (let time = 0; time < 2; time++) {
    const client = new RtspClient({
      url: url("pi-1/yard"),
      credentials: { username: "pi-1", password: "correct horse" },
    });
    await client.connect();
    await client.announce(clip.sdp);
    await client.setup("record");
    await client.record();
    for (const unit of units) {
      client.sendRtcp(0, encodeUnitBegin(1, unit));
      for (const { track, rtp } of unit.packets) client.sendRtp(track, rtp);
      const sha256 = unitDigest(unit.packets);
      client.sendRtcp(0, encodeUnitEnd(1, { packetCount: unit.packets.length, sha256 }));
    }
    await until(async () => {
      const ranges = parsePersisted((await client.getParameter("persisted"))!);
      return ranges.length === 1 && ranges[0]!.last === 3n;
    }, "all is persisted");
    assert.equal(await client.getParameter("nonsense"), undefined);
    await client.close();
  }
  const fragments = await video.fragments("yard", 0, Number.MAX_SAFE_INTEGER, 10);
  assert.equal(fragments.length, 3);
  assert.deepEqual(
    await archivedDigests(video, "yard"),
    clip.pictures.map((picture) => picture.vclSha256),
  );
});

test("readers get what a publisher sends, from the last key frame on", async (t) => {
  const { ingest, dir, url, video } = await makeHouse(t, DEVICES);
  const source = join(dir, "source.mp4");
  await makeSource(source, 60, "-bf", "0");
  const login = "pi-1:correct%20horse";
  // Without an end, however long its readers take.
  const args = [
    "-re",
    "-stream_loop",
    "-1",
    "-i",
    source,
    "-c",
    "copy",
    "-f",
    "rtsp",
    "-rtsp_transport",
    "tcp",
    url("yard", login),
  ];
  const publisher = ffmpeg(t, ...args);
  await until(() => (video.cameras()[0]?.fragments ?? 0) > 0, "it publishes");
  for (const address of [url("yard", login), ingest.readerUrl("yard")]) {
    const { stdout } = await run("ffprobe", [
      ...[
        "-v",
        "error",
        "-rtsp_transport",
        "tcp",
        "-show_entries",
        "stream=codec_name,width",
        "-of",
        "csv=p=0",
      ],
      address,
    ]);
    assert.equal(stdout.trim(), "h264,320");
  }
  publisher.child.kill("SIGKILL");
  await publisher.done;
  await assert.rejects(async () => {
    for (;;) {
      const client = new RtspClient({
        url: url("yard"),
        credentials: { username: "pi-1", password: "correct horse" },
      });
      await client.connect();
      await client.describe().finally(() => client.close());
    }
  }, /404/);
});

test("the gateway's own login, which a list of processes shows, is good for one connection", async (t) => {
  const { ingest, url, video } = await makeHouse(t, DEVICES);
  const clip = await makeClip(15);
  const credentials = { username: "pi-1", password: "correct horse" };
  const publisher = new RtspClient({ url: url("yard"), credentials });
  t.after(() => publisher.close());
  await publisher.connect();
  await publisher.announce(clip.sdp);
  assert.equal(video.cameras().length, 1);
  const read = async (address: string): Promise<void> => {
    const client = new RtspClient({ url: address });
    await client.connect();
    await client.describe().finally(() => client.close());
  };
  const [first, second] = [ingest.readerUrl("yard"), ingest.readerUrl("yard")];
  assert.notEqual(first, second);
  await read(first);
  await assert.rejects(read(first), /401/);
  await read(second);
  // It opens nothing but a camera's stream.
  const third = new RtspClient({ url: ingest.readerUrl("porch") });
  t.after(() => third.close());
  await third.connect();
  await assert.rejects(third.announce(clip.sdp), /401/);
});

test("whoever may not, is refused, and harms nobody else", async (t) => {
  const { ingest, url, video } = await makeHouse(t, DEVICES);
  const clip = await makeClip(15);
  const announce = async (
    path: string,
    username: string,
    password: string,
    sdp = clip.sdp,
  ): Promise<RtspClient> => {
    const client = new RtspClient({ url: url(path), credentials: { username, password } });
    t.after(() => client.close());
    await client.connect();
    await client.announce(sdp);
    return client;
  };
  await assert.rejects(announce("yard", "pi-1", "wrong"), /401/);
  await assert.rejects(announce("pi-2/yard", "pi-1", "correct horse"), /401/);
  await assert.rejects(announce("yard", "headwater gateway", "correct horse"), /401/);
  await assert.rejects(announce("a/b/c", "pi-1", "correct horse"), /40[14]/);
  await assert.rejects(announce("..", "pi-1", "correct horse"), /40[014]/);
  await assert.rejects(announce("yard", "pi-1", "correct horse", "v=0\r\ns=x\r\nt=0 0\r\n"), /4\d\d/);
  assert.deepEqual(video.cameras(), []);

  const good = await announce("yard", "pi-1", "correct horse");
  await good.setup("record");
  await good.record();
  await assert.rejects(announce("yard", "pi-2", "battery staple"), /403 Another Device/);
  // Garbage in place of RTP and RTCP, and half a request on another connection.
  const bad = await announce("bad", "pi-2", "battery staple");
  await bad.setup("record");
  await bad.record();
  for (let i = 0; i < 200; i++) {
    bad.sendRtcp(0, Buffer.from(Array.from({ length: 40 }, (_, at) => (i * 31 + at * 17) & 0xff)));
    bad.sendRtp(0, Buffer.concat([Buffer.from([0x80, 96]), Buffer.alloc(60, i)]));
  }
  const half = connect(ingest.port, "127.0.0.1");
  half.write("ANNOUNCE rtsp://x/y RTSP/1.0\r\nContent-Length: 99\r\n\r\nv=0");
  t.after(() => half.destroy());
  const [unit] = unitsOf(clip, 1n, systemClock.nowUs());
  good.sendRtcp(0, encodeUnitBegin(1, unit!));
  for (const { track, rtp } of unit!.packets) good.sendRtp(track, rtp);
  good.sendRtcp(
    0,
    encodeUnitEnd(1, { packetCount: unit!.packets.length, sha256: unitDigest(unit!.packets) }),
  );
  await until(
    async () => (await good.getParameter("persisted")) === "0000000000000001:1-1",
    "it is persisted",
  );
});

test("a publisher's `Range: clock=` is the time of its first picture", async (t) => {
  const { video, url } = await makeHouse(t);
  const clip = await makeClip(30);
  const client = new RtspClient({ url: url("porch") });
  await client.connect();
  await client.announce(clip.sdp);
  await client.setup("record");
  const atUs = systemClock.nowUs() - 1_000 * 3_600_000_000;
  await client.record(atUs);
  for (const { packets } of unitsOf(clip, 1n, 0))
    for (const { track, rtp } of packets) client.sendRtp(track, rtp);
  await client.close();
  await until(() => video.cameras()[0]!.fragments === 2, "all is archived");
  const found = await video.fragments("porch", 0, Number.MAX_SAFE_INTEGER, 10);
  assert.deepEqual(
    found.map(({ producerUs }) => producerUs),
    [atUs, atUs + 1_000_000],
  );
});
