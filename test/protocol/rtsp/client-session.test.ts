import assert from "node:assert/strict";
import { createServer, type Socket } from "node:net";
import test from "node:test";
import { RtspStatusError } from "../../../protocol/rtsp/client-errors.ts";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { encodeSenderReport, parseRtcp } from "../../../protocol/rtsp/rtcp.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import { startRelayServer, until } from "../../support/relay-server.ts";

const SDP = [
  "v=0",
  "o=- 0 0 IN IP4 127.0.0.1",
  "s=test",
  "t=0 0",
  "m=video 0 RTP/AVP 96",
  "a=rtpmap:96 H264/90000",
  "a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LAHtoCgL/lwFqAgICg,aM48gA==",
  "a=control:streamid=0",
  "m=audio 0 RTP/AVP 97",
  "a=rtpmap:97 MPEG4-GENERIC/48000/2",
  "a=control:streamid=1",
  "",
].join("\r\n");

function packet(sequence: number, payload: Buffer): Buffer {
  return encodeRtp(
    { marker: true, payloadType: 96, sequence, timestamp: sequence * 6_000, ssrc: 7 },
    payload,
  );
}

const KEY = Buffer.concat([Buffer.of(0x65), Buffer.alloc(900, 1)]);
const DELTA = Buffer.concat([Buffer.of(0x41), Buffer.alloc(300, 2)]);

test("a publisher's packets arrive whole and in order, and a reader who joins late begins at the key frame", async () => {
  const { server, received, events, url } = await startRelayServer();
  const publisher = new RtspClient({ url: url("yard") });
  await publisher.connect();
  await publisher.announce(SDP);
  await publisher.setup("record");
  await publisher.record(1_795_255_483_123_456);
  publisher.sendRtcp(
    0,
    encodeSenderReport({ ssrc: 7, utcUs: 1e15, rtpTime: 5, packetCount: 0, octetCount: 0 }),
  );
  const sent: Buffer[] = [];
  for (let i = 1; i <= 25; i++) sent.push(packet(i, i % 10 === 1 ? KEY : DELTA));
  for (const rtp of sent) publisher.sendRtp(0, rtp);
  publisher.sendRtp(1, packet(1, Buffer.from("aac")));
  assert.equal(await publisher.getParameter("count"), "27");
  assert.equal(await publisher.getParameter("unknown"), undefined);
  assert.deepEqual(
    received.filter(({ track, isRtcp }) => track === 0 && !isRtcp).map(({ bytes }) => bytes),
    sent,
  );
  assert.deepEqual(events, ["publish yard by undefined", "record 1795255483123456"]);

  const read: Buffer[] = [];
  const reports: Buffer[] = [];
  let closedWith: Error | undefined;
  const reader = new RtspClient({
    url: url("yard"),
    onRtp: (track, rtp) => void (track === 0 && read.push(rtp)),
    onRtcp: (_track, bytes) => void reports.push(bytes),
    onClose: (error) => {
      closedWith = error;
    },
  });
  await reader.connect();
  const { description } = await reader.describe();
  assert.deepEqual(
    description.media.map(({ encoding, clockRate }) => `${encoding}/${clockRate}`),
    ["H264/90000", "MPEG4-GENERIC/48000"],
  );
  await reader.setup("play");
  await reader.play();
  publisher.sendRtp(0, packet(26, DELTA));
  await until(() => read.length === 6, "the group of pictures");
  assert.deepEqual(read, [...sent.slice(20), packet(26, DELTA)]);
  assert.equal(parseRtcp(reports[0]!)[0]!.type, "sr");

  await publisher.close();
  await until(() => closedWith !== undefined, "the reader's end");
  assert.equal(events.at(-1), "close torn down");
  await reader.close();
  await server.close();
});

test("only who knows the password publishes, and no error shows it", async () => {
  const { server, events, url } = await startRelayServer((user) =>
    user === "pi-1" ? "geheim:1" : undefined,
  );
  const good = new RtspClient({ url: url("yard"), credentials: { username: "pi-1", password: "geheim:1" } });
  await good.connect();
  await good.announce(SDP);
  await good.setup("record", [0]);
  await good.record();
  assert.deepEqual(events, ["publish yard by pi-1", "record undefined"]);
  for (const user of ["pi-1:falsch", "pi-2:geheim:1"]) {
    const bad = new RtspClient({ url: url("yard").replace("//", `//${user}@`) });
    await bad.connect();
    await assert.rejects(bad.announce(SDP), (error: Error) => {
      assert.ok(error instanceof RtspStatusError && error.status === 401);
      assert.doesNotMatch(JSON.stringify(error) + error.stack, /falsch|geheim/);
      return true;
    });
    await bad.close();
  }
  const none = new RtspClient({ url: url("yard") });
  await none.connect();
  await assert.rejects(none.describe(), /401/);
  await none.close();
  await good.close();
  await server.close();
});

test("sending outruns the network: sendRtp says so, drained() waits, nothing is lost", async () => {
  const { server, received, url } = await startRelayServer();
  const publisher = new RtspClient({ url: url("fast"), highWaterBytes: 65_536 });
  await publisher.connect();
  await publisher.announce(SDP);
  await publisher.setup("record", [0]);
  await publisher.record();
  let waits = 0;
  for (let i = 0; i < 20_000; i++) {
    if (publisher.sendRtp(0, packet(i, KEY))) continue;
    waits++;
    await publisher.drained();
    assert.equal(publisher.backlogBytes(), 0);
  }
  await publisher.drained();
  assert.equal(await publisher.getParameter("count"), "20000");
  assert.ok(waits > 10);
  assert.ok(received.every(({ bytes }, i) => bytes.readUInt16BE(2) === (i & 0xffff)));
  await publisher.close();
  await server.close();
});

/** Answers nothing but what `answer` says to each request's bytes. */
async function startStranger(answer: (socket: Socket, text: string) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => answer(socket, chunk.toString()));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `rtsp://admin:geheim@127.0.0.1:${port}/yard`,
    close(): Promise<void> {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

test("a server that is silent, talks nonsense, hangs up or is not there ends the client with a clear error", async () => {
  const silent = await startStranger(() => undefined);
  let closedWith: Error | undefined;
  const waiting = new RtspClient({
    url: silent.url,
    requestTimeoutMs: 100,
    onClose: (error) => {
      closedWith = error;
    },
  });
  await waiting.connect();
  await assert.rejects(waiting.describe(), { code: "RTSP_TIMEOUT" });
  await until(() => closedWith !== undefined, "the close");
  await assert.rejects(waiting.options(), { code: "RTSP_TIMEOUT" });
  await assert.rejects(waiting.drained(), { code: "RTSP_TIMEOUT" });
  assert.equal(waiting.sendRtp(0, packet(1, KEY)), false);
  await waiting.close();
  await silent.close();
  const gone = new RtspClient({ url: silent.url });
  await assert.rejects(gone.connect(), (error: Error) => {
    assert.match(error.message, /^rtsp:\/\/127\.0\.0\.1:\d+\/yard: .*ECONNREFUSED/);
    return true;
  });
  for (const [say, code] of [
    ["HTTP/1.1 200 OK\r\n\r\n", "RTSP_MALFORMED"],
    [undefined, "RTSP_CONNECT"],
    ["RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 4\r\n\r\nhtml", "SDP_MALFORMED"],
    ["RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://elsewhere/\r\n\r\n", "RTSP_REFUSED"],
  ] as const) {
    const stranger = await startStranger((socket) =>
      say === undefined ? socket.destroy() : socket.write(say),
    );
    const client = new RtspClient({ url: stranger.url });
    await client.connect();
    await assert.rejects(client.describe(), (error: Error & { code: string }) => {
      assert.equal(error.code, code);
      assert.doesNotMatch(`${JSON.stringify(error)}${error.stack}`, /geheim/);
      return true;
    });
    await client.close();
    await stranger.close();
  }
});

test("the password in an address goes nowhere but into Digest, also when the address is bad", async () => {
  const client = new RtspClient({ url: "rtsp://admin:ge%3Aheim@[::1]:8554/yard?channel=1" });
  assert.equal(client.url, "rtsp://[::1]:8554/yard?channel=1");
  for (const url of [
    "http://admin:geheim@h/",
    "rtsp://admin:ge@heim@h/x",
    "rtsp://a:geheim@h:99999/",
    "rtsp://%zz:geheim@h/",
  ]) {
    assert.throws(
      () => new RtspClient({ url }),
      (error: Error & { code: string }) =>
        error.code === "RTSP_ADDRESS" && !/geheim|heim/.test(String(error.stack)),
    );
  }
});

test("a server may ask the client, and the session is kept alive before it times out", async () => {
  const asked: string[] = [];
  const stranger = await startStranger((socket, text) => {
    for (const request of text.split(/\r\n\r\n(?=[A-Z])/)) {
      asked.push(request.split(" ")[0]!);
      if (request.startsWith("RTSP/")) continue;
      const sequence = /CSeq: (\d+)/.exec(request)![1];
      const status = request.startsWith("GET_PARAMETER") ? "501 No" : "200 OK";
      const sdp = request.startsWith("DESCRIBE") ? SDP : "";
      socket.write(
        `RTSP/1.0 ${status}\r\nCSeq: ${sequence}\r\nSession: s;timeout=1\r\nContent-Length: ${sdp.length}\r\n\r\n${sdp}`,
      );
      if (request.startsWith("PLAY")) socket.write("OPTIONS * RTSP/1.0\r\nCSeq: 77\r\n\r\n");
    }
  });
  const client = new RtspClient({ url: stranger.url });
  await client.connect();
  await client.describe();
  await client.setup("play", [0]);
  await client.play();
  // A server that does not know GET_PARAMETER is kept alive by OPTIONS, now and from then on.
  await until(() => asked.filter((method) => method === "OPTIONS").length === 2, "two signs of life");
  assert.deepEqual(asked, ["DESCRIBE", "SETUP", "PLAY", "RTSP/1.0", "GET_PARAMETER", "OPTIONS", "OPTIONS"]);
  await client.close();
  assert.equal(asked.at(-1), "TEARDOWN");
  await stranger.close();
});
