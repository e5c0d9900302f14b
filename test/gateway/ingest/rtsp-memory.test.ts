/** What a publisher makes the gateway hold is what is counted for it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import test, { type TestContext } from "node:test";
import { RtspIngest } from "../../../gateway/ingest/rtsp-ingest.ts";
import type { CameraFeed, Video } from "../../../gateway/video/video.ts";
import { encodeUnitBegin } from "../../../protocol/footage.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { frameHead } from "../../../protocol/rtsp/messages.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";
import { makeClip } from "../../support/h264-rtp.ts";
import { bufferBytes, heldAtMost } from "../../support/held-memory.ts";
import { eventually } from "../../support/program.ts";
import { openRtspHouse } from "./rtsp-house.ts";

/** Publishes at `/yard` on channels 0 and 1. */
async function startRecording(t: TestContext, port: number, sdp: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => undefined);
  const requests = [
    `ANNOUNCE rtsp://h/yard RTSP/1.0\r\nCSeq: 1\r\nContent-Length: ${sdp.length}\r\n\r\n${sdp}`,
    "SETUP rtsp://h/yard/trackID=0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n",
    "RECORD rtsp://h/yard RTSP/1.0\r\nCSeq: 3\r\n\r\n",
  ];
  for (const request of requests) {
    socket.write(request);
    const [answer] = (await once(socket, "data")) as [Buffer];
    assert.match(answer.toString(), /^RTSP\/1.0 200/);
  }
  return socket;
}

function frame(channel: number, payload: Buffer): Buffer {
  return Buffer.concat([frameHead(channel, payload.length), payload]);
}

test("a small packet does not hold the large chunk that it came in", async (t) => {
  const house = await openRtspHouse(t);
  const clip = await makeClip(1);
  const socket = await startRecording(t, house.ingest.port, clip.sdp);
  const nal = Buffer.concat([Buffer.of(0x41), Buffer.alloc(15, 7)]);
  const rest = frame(77, Buffer.alloc(65_500));
  const before = bufferBytes();
  for (let sequence = 0; sequence < 2_000; sequence++) {
    const head = { marker: false, payloadType: 96, sequence, timestamp: 1, ssrc: 1 };
    const bytes = Buffer.concat([frame(0, encodeRtp(head, nal)), rest]);
    if (!socket.write(bytes)) await once(socket, "drain");
  }
  socket.write("GET_PARAMETER rtsp://h/yard RTSP/1.0\r\nCSeq: 4\r\n\r\n");
  await once(socket, "data");
  await heldAtMost(16 * 1_048_576, before);
});

test("reports that a publisher sends are kept for joiners without what came with them", async (t) => {
  const house = await openRtspHouse(t);
  const clip = await makeClip(1);
  const socket = await startRecording(t, house.ingest.port, clip.sdp);
  const report = Buffer.alloc(28);
  report.set([0x80, 200, 0, 6]);
  const rest = frame(77, Buffer.alloc(65_500));
  const before = bufferBytes();
  for (let n = 0; n < 2_000; n++) {
    if (!socket.write(Buffer.concat([frame(1, report), rest]))) await once(socket, "drain");
  }
  socket.write("GET_PARAMETER rtsp://h/yard RTSP/1.0\r\nCSeq: 4\r\n\r\n");
  await once(socket, "data");
  await heldAtMost(16 * 1_048_576, before);
});

test("a publisher of marks alone is slowed down as well", async (t) => {
  let marks = 0;
  let isSlow = false;
  let catchUp = (): void => undefined;
  const caughtUp = new Promise<void>((resolve) => {
    catchUp = resolve;
  });
  const feed: CameraFeed = {
    startsAt() {},
    packet() {},
    rtcp: () => void marks++,
    persisted: () => [],
    waitingBytes: () => (isSlow ? 17 * 1_048_576 : 0),
    drained: () => caughtUp,
    close: async () => {},
  };
  const video = { openFeed: () => feed } as unknown as Video;
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices: [] });
  await ingest.start();
  t.after(() => ingest.close());
  const clip = await makeClip(1);
  const socket = await startRecording(t, ingest.port, clip.sdp);
  isSlow = true;
  const mark = encodeUnitBegin(1, { epoch: 1n, sequence: 1n, producerUs: 1, startsWithKeyFrame: true });
  const total = 200_000;
  socket.write(Buffer.concat(Array<Buffer>(total).fill(frame(1, mark))));
  await new Promise((resolve) => setTimeout(resolve, 250));
  assert.ok(marks < total / 10, `${marks} marks came through`);
  isSlow = false;
  catchUp();
  await eventually("the rest came", 60_000, async () => (marks === total ? true : undefined));
});

test("who publishes a camera whose footage waits for the disk is told to come later", async (t) => {
  let waitingBytes = 17 * 1_048_576;
  const closed: string[] = [];
  const video = {
    openFeed: (camera: string) => ({
      waitingBytes: () => waitingBytes,
      close: async () => void closed.push(camera),
    }),
  } as unknown as Video;
  const parts = { clock: systemClock, log: silentLog, metrics: new Metrics() };
  const ingest = new RtspIngest({ ...parts, host: "127.0.0.1", port: 0, video, devices: [] });
  await ingest.start();
  t.after(() => ingest.close());
  const { sdp } = await makeClip(1);
  const client = new RtspClient({ url: `rtsp://127.0.0.1:${ingest.port}/yard` });
  t.after(() => client.close());
  await client.connect();
  await assert.rejects(client.announce(sdp), /503/);
  assert.deepEqual(closed, ["yard"]);
  waitingBytes = 0;
  await client.announce(sdp);
});
