/** The compatibility preview as a browser gets it: camera → RTSP door → ffmpeg → websocket. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { WebSocket } from "ws";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import { Previews } from "../../../gateway/video/preview.ts";
import { openVideo, type VideoArchive } from "../../../gateway/video/video-archive.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { type Fixture, KEY, openFixture } from "./api-fixture.ts";

const DEVICES = [{ id: "pi-1", password: "correct horse" }];
/** ISO/IEC 13818-1 §2.4.3.2: each begins with 0x47. */
const TS_PACKET_BYTES = 188;

interface House {
  readonly fixture: Fixture;
  readonly cookie: string;
  readonly video: VideoArchive;
  readonly rtspPort: number;
  readers(): Promise<number>;
}

async function open(t: TestContext): Promise<House> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-preview-"));
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const video = await openVideo({ ...parts, dir, retentionHours: 1e6, maxBytes: 1e12 });
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices: DEVICES });
  await ingest.start();
  const previews = new Previews({ urlOf: (camera) => ingest.readerUrl(camera), log: silentLog, retryMs: 50 });
  const fixture = await openFixture({ api: { video, previews } });
  t.after(async () => {
    await fixture.close();
    await previews.close();
    await ingest.close();
    await video.close();
    await removeFolder(dir);
  });
  const signedIn = await fetch(`${fixture.origin}/api/session`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ accessKeyId: KEY.id, secretAccessKey: KEY.secret }),
  });
  return {
    fixture,
    video,
    cookie: signedIn.headers.get("set-cookie")!.split(";")[0]!,
    rtspPort: ingest.port,
    readers: async () => Number(/headwater_rtsp_readers (\d+)/.exec(await parts.metrics.render())![1]),
  };
}

/** ffmpeg as the camera `yard`. */
function publish(t: TestContext, rtspPort: number): void {
  const camera = spawn(
    "ffmpeg",
    [
      ..."-v error -nostdin -re -f lavfi -i testsrc2=size=320x240:rate=15 -t 60".split(" "),
      ..."-c:v libx264 -preset ultrafast -g 15 -bf 0 -f rtsp -rtsp_transport tcp".split(" "),
      `rtsp://pi-1:correct%20horse@127.0.0.1:${rtspPort}/pi-1/yard`,
    ],
    { stdio: "ignore" },
  );
  t.after(() => camera.kill("SIGKILL"));
}

async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (const endMs = performance.now() + 90_000; !(await holds()); ) {
    if (performance.now() > endMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function watch(house: House, path: string, headers: Record<string, string>): WebSocket {
  return new WebSocket(`ws://127.0.0.1:${house.fixture.port}${path}`, { headers });
}

test("a signed-in page gets MPEG-1 in MPEG-TS over a websocket, and ffmpeg runs only meanwhile", async (t) => {
  const house = await open(t);
  publish(t, house.rtspPort);
  await until(() => (house.video.cameras()[0]?.fragments ?? 0) > 0, "the camera publishes");
  assert.equal(await house.readers(), 0);

  const { cookie } = house;
  const socket = watch(house, "/api/live/preview/yard", { cookie, origin: house.fixture.origin });
  const chunks: Buffer[] = [];
  socket.on("message", (data: Buffer, isBinary) => {
    assert.ok(isBinary);
    chunks.push(data);
  });
  await until(() => Buffer.concat(chunks).length > 60_000, "pictures come");
  const stream = Buffer.concat(chunks);
  for (let at = 0; at < 10 * TS_PACKET_BYTES; at += TS_PACKET_BYTES) assert.equal(stream[at], 0x47);
  const probe = execFile("ffprobe", [
    ..."-v error -f mpegts -show_entries stream=codec_name,width -of csv=p=0 -".split(" "),
  ]);
  const answer = once(probe.stdout!, "data");
  probe.stdin!.on("error", () => undefined);
  probe.stdin!.end(stream);
  assert.match(String((await answer)[0]), /^mpeg1video,320/);
  assert.equal(await house.readers(), 1);

  socket.close();
  await until(async () => (await house.readers()) === 0, "its reader has left");
});

test("without a session, from another site, or of no camera there is no preview", async (t) => {
  const house = await open(t);
  const { cookie } = house;
  const refusal = async (headers: Record<string, string>): Promise<number> => {
    const socket = watch(house, "/api/live/preview/yard", headers);
    socket.on("error", () => undefined);
    const [, answer] = (await once(socket, "unexpected-response")) as [unknown, { statusCode: number }];
    socket.terminate();
    return answer.statusCode;
  };
  assert.equal(await refusal({}), 401);
  assert.equal(await refusal({ cookie, origin: "http://evil.example" }), 403);
  const socket = watch(house, "/api/live/preview/nothing", { cookie });
  const [code] = (await once(socket, "close")) as [number];
  assert.equal(code, 4404);
  assert.equal(await house.readers(), 0);
});
