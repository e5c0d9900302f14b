import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test from "node:test";
import { RtspClient } from "../../../protocol/rtsp/client-session.ts";
import { frameHead, type RtspMessage, RtspParser } from "../../../protocol/rtsp/messages.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";
import {
  type Publication,
  type PublisherSession,
  RtspError,
  RtspServer,
} from "../../../protocol/rtsp/server.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { type Log, silentLog } from "../../../runtime/log.ts";
import { startRelayServer, until } from "../../support/relay-server.ts";

const SDP = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t\r\n";
const TCP = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";

/** A clock by which nobody is idle before the test says so, however slow the machine is. */
function handClock() {
  let ms = 0;
  const passes = (moreMs: number): void => {
    ms += moreMs;
  };
  return { nowUs: systemClock.nowUs, monotonicMs: () => ms, passes };
}

/** Says exactly what it is told, however wrong. */
class RawPeer {
  readonly socket: Socket;
  readonly messages: RtspMessage[] = [];
  closed = false;
  #sequence = 0;
  readonly #url: string;

  constructor(port: number, path = "yard") {
    this.#url = `rtsp://127.0.0.1:${port}/${path}`;
    this.socket = connect(port, "127.0.0.1");
    const parser = new RtspParser((message) => this.messages.push(message));
    this.socket.on("data", (chunk: Buffer) => parser.push(chunk));
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => {
      this.closed = true;
    });
  }

  /** The status of the answer. @param suffix of the address */
  async ask(method: string, suffix = "", headers: readonly string[] = [], body = ""): Promise<number> {
    const before = this.messages.length;
    const lines = [`${method} ${this.#url}${suffix} RTSP/1.0`, `CSeq: ${++this.#sequence}`, ...headers];
    if (body !== "") lines.push(`Content-Length: ${body.length}`);
    this.socket.write(`${lines.join("\r\n")}\r\n\r\n${body}`);
    await until(() => this.messages.length > before, `the answer to ${method}`);
    const answer = this.messages[before];
    assert.ok(answer?.kind === "response");
    assert.equal(answer.headers.get("cseq"), String(this.#sequence));
    return answer.status;
  }
}

test("each wrong request gets the status that says why", async () => {
  const { server } = await startRelayServer();
  const peer = new RawPeer(server.port);
  assert.equal(await peer.ask("OPTIONS"), 200);
  assert.equal(await peer.ask("REDIRECT"), 501);
  assert.equal(await peer.ask("RECORD"), 455);
  assert.equal(await peer.ask("PLAY"), 455);
  assert.equal(await peer.ask("PAUSE"), 455);
  assert.equal(await peer.ask("DESCRIBE"), 404);
  assert.equal(await peer.ask("DESCRIBE", "/../x"), 400);
  assert.equal(await peer.ask("SETUP", "/t", [TCP]), 404);
  assert.equal(await peer.ask("OPTIONS", "", ["Require: wonders"]), 551);
  assert.equal(await peer.ask("OPTIONS", "", ["Session: another"]), 454);
  assert.equal(await peer.ask("GET_PARAMETER"), 200);
  assert.equal(await peer.ask("GET_PARAMETER", "", [], "count\r\n"), 451);
  assert.equal(await peer.ask("SET_PARAMETER", "", [], "a: b\r\n"), 451);
  assert.equal(await peer.ask("ANNOUNCE", "", [], "<html>"), 400);
  assert.equal(await peer.ask("ANNOUNCE", "", [], "v=0\r\n"), 400);
  assert.equal(await peer.ask("ANNOUNCE", "", ["Content-Type: text/html"], SDP), 415);
  assert.equal(await peer.ask("ANNOUNCE", "", [], SDP), 200);
  assert.equal(await peer.ask("ANNOUNCE", "", [], SDP), 455);
  assert.equal(await peer.ask("RECORD"), 455);
  assert.equal(await peer.ask("SETUP", "/t", ["Transport: RTP/AVP;unicast;client_port=5000-5001"]), 461);
  assert.equal(await peer.ask("SETUP", "/other", [TCP]), 404);
  assert.equal(await peer.ask("SETUP", "/t", [TCP]), 200);
  assert.equal(await peer.ask("RECORD"), 200);
  assert.equal(await peer.ask("SETUP", "/t", [TCP]), 455);
  assert.equal(await peer.ask("GET_PARAMETER", "", [], "count\r\n"), 200);
  assert.equal(await peer.ask("TEARDOWN"), 200);
  await until(() => peer.closed, "the end of the connection");
  await server.close();
});

test("a handler refuses with a status of its own, and its faults end one session only", async () => {
  const server = new RtspServer({
    ...{ host: "127.0.0.1", port: 0, log: silentLog, clock: systemClock },
    handler: {
      publish(path): Publication {
        if (path === "forbidden") throw new RtspError(403, "Forbidden");
        if (path === "broken") throw new Error("a secret of ours");
        return {
          packet() {
            throw new Error("cannot be handled");
          },
          rtcp() {},
          close() {},
        };
      },
    },
  });
  await server.start();
  assert.equal(await new RawPeer(server.port, "forbidden").ask("ANNOUNCE", "", [], SDP), 403);
  const broken = new RawPeer(server.port, "broken");
  assert.equal(await broken.ask("ANNOUNCE", "", [], SDP), 500);
  assert.doesNotMatch(JSON.stringify(broken.messages), /secret/);
  assert.equal(await broken.ask("DESCRIBE"), 405);
  const throwing = new RawPeer(server.port);
  assert.equal(await throwing.ask("ANNOUNCE", "", [], SDP), 200);
  assert.equal(await throwing.ask("SETUP", "/t", [TCP]), 200);
  assert.equal(await throwing.ask("RECORD"), 200);
  throwing.socket.write(Buffer.concat([frameHead(9, 2), Buffer.alloc(2), frameHead(0, 3), Buffer.alloc(3)]));
  assert.equal(await throwing.ask("OPTIONS"), 200);
  throwing.socket.write(Buffer.concat([frameHead(0, 12), Buffer.alloc(12, 0x80)]));
  await until(() => throwing.closed, "its end");
  assert.equal(await broken.ask("OPTIONS"), 200);
  await server.close();
  await until(() => broken.closed, "the end with the server");
});

test("who speaks no RTSP, guesses passwords or says nothing is sent away", async () => {
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_fields, message) => void warnings.push(message ?? "") };
  const clock = handClock();
  const { server } = await startRelayServer(() => "secret", { idleTimeoutMs: 300, log, clock });
  const web = new RawPeer(server.port);
  web.socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await until(() => web.closed, "the browser's end");
  const guesser = new RawPeer(server.port);
  const guess = 'Authorization: Digest username="a", realm="Headwater", nonce="0", uri="x", response="0"';
  for (let i = 0; i < 8; i++) assert.equal(await guesser.ask("DESCRIBE", "", [guess]), 401);
  await until(() => guesser.closed, "the guesser's end");
  assert.deepEqual(warnings, ["bad RTSP peer", "too many wrong passwords"]);
  const talker = new RawPeer(server.port);
  await until(() => server.connections === 1, "the talker alone");
  for (let passedMs = 0; passedMs < 300; passedMs += 20) {
    assert.equal(await talker.ask("OPTIONS"), 200);
    clock.passes(20);
  }
  // It talked all the time, and is looked at now and then.
  await until(() => talker.closed, "the talker's end");
  assert.equal(server.connections, 0);
  await server.close();
});

test("beyond the limit the oldest stranger yields, then the newest; a busy port is a clear error", async () => {
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_fields, message) => void warnings.push(message ?? "") };
  const left: string[] = [];
  const onFull = (whose: string): void => void left.push(whose);
  const { server } = await startRelayServer(undefined, { maxConnections: 2, maxStrangers: 2, log, onFull });
  const first = new RawPeer(server.port);
  assert.equal(await first.ask("ANNOUNCE", "", [], SDP), 200);
  assert.equal(await first.ask("SETUP", "/t", [TCP]), 200);
  const second = new RawPeer(server.port);
  assert.equal(await second.ask("ANNOUNCE", "2", [], SDP), 200);
  const third = new RawPeer(server.port);
  await until(() => second.closed, "the stranger's end");
  assert.equal(await third.ask("ANNOUNCE", "3", [], SDP), 200);
  assert.equal(await third.ask("SETUP", "3/t", [TCP]), 200);
  const fourth = new RawPeer(server.port);
  await until(() => fourth.closed, "the refusal");
  assert.equal(await first.ask("OPTIONS"), 200);
  assert.equal(await third.ask("OPTIONS"), 200);
  assert.deepEqual(left, ["oldest stranger", "newest"]);
  assert.deepEqual(warnings, ["too many RTSP connections"]);
  await assert.rejects(startRelayServer(undefined, { port: server.port }), { code: "PORT_BUSY" });
  await server.close();
});

test("a user who has all the connections that there may be keeps no other out", async (t) => {
  const left: string[] = [];
  const onFull = (whose: string): void => void left.push(whose);
  const { server } = await startRelayServer(undefined, { maxConnections: 8, onFull });
  const doorOf = async (user: string): Promise<number> => {
    const proven = { user, mayUse: () => true };
    const door = createServer((socket) => server.adopt(socket, { authenticate: () => undefined, proven }));
    t.after(() => void door.close());
    await once(door.listen(0, "127.0.0.1"), "listening");
    return (door.address() as AddressInfo).port;
  };
  const first = await doorOf("pi-1");
  const many: RawPeer[] = [];
  for (let i = 0; i < 8; i++) {
    many.push(new RawPeer(first));
    assert.equal(await many[i]!.ask("OPTIONS"), 200);
  }
  const other = new RawPeer(await doorOf("pi-2"));
  assert.equal(await other.ask("OPTIONS"), 200);
  await until(() => many[6]!.closed, "the end of the oldest beyond the share");
  for (const kept of [...many.slice(0, 6), other]) assert.equal(await kept.ask("OPTIONS"), 200);
  assert.deepEqual(left, ["beyond its share"]);
  await server.close();
});

test("a reader that does not read costs a bounded backlog, and others get everything", async () => {
  const { server, received, relays, url } = await startRelayServer(undefined, {
    maxReaderBacklogBytes: 200_000,
  });
  const publisher = new RtspClient({ url: url("yard") });
  await publisher.connect();
  await publisher.announce(SDP);
  await publisher.setup("record");
  await publisher.record();
  const stuck = new RawPeer(server.port);
  assert.equal(await stuck.ask("SETUP", "/trackID=0", [TCP]), 200);
  assert.equal(await stuck.ask("PLAY"), 200);
  stuck.socket.pause();
  let got = 0;
  const reader = new RtspClient({ url: url("yard"), onRtp: () => void got++ });
  await reader.connect();
  await reader.describe();
  await reader.setup("play");
  await reader.play();
  const total = 30_000;
  for (let n = 0; n < total; n++) {
    const payload = Buffer.alloc(1_200, n % 500 === 0 ? 0x65 : 0x41);
    const fields = { marker: true, payloadType: 96, sequence: n & 0xffff, timestamp: n * 6_000, ssrc: 1 };
    if (!publisher.sendRtp(0, encodeRtp(fields, payload))) await publisher.drained();
    if (n % 500 === 499) await until(() => got === n + 1, "the reader");
  }
  await until(() => received.length === total, "all packets");
  assert.equal(got, total);
  assert.ok(relays.get("yard")!.skippedGroups > 10);
  await reader.close();
  await publisher.close();
  await server.close();
  await until(() => stuck.closed || stuck.socket.isPaused(), "the stuck reader's end");
  stuck.socket.destroy();
});

test("a publisher whom the handler does not read is slowed down by TCP, and nothing is lost", async () => {
  let session: PublisherSession | undefined;
  let packets = 0;
  const clock = handClock();
  const server = new RtspServer({
    ...{ host: "127.0.0.1", port: 0, log: silentLog, clock, idleTimeoutMs: 200 },
    handler: {
      publish(_path, _sdp, publisher) {
        session = publisher;
        publisher.pauseReading();
        return { packet: () => void packets++, rtcp() {}, close() {} };
      },
    },
  });
  await server.start();
  const socket = connect(server.port, "127.0.0.1");
  await once(socket, "connect");
  const requests = [`ANNOUNCE rtsp://h/y RTSP/1.0\r\nCSeq: 1\r\nContent-Length: ${SDP.length}\r\n\r\n${SDP}`];
  requests.push(
    `SETUP rtsp://h/y/t RTSP/1.0\r\nCSeq: 2\r\n${TCP}\r\n\r\n`,
    "RECORD rtsp://h/y RTSP/1.0\r\nCSeq: 3\r\n\r\n",
  );
  socket.write(requests.join(""));
  const rtp = encodeRtp(
    { marker: true, payloadType: 96, sequence: 1, timestamp: 1, ssrc: 1 },
    Buffer.alloc(1_000),
  );
  const total = 20_000;
  const frame = Buffer.concat([frameHead(0, rtp.length), rtp]);
  for (let n = 0; n < total; n++) socket.write(frame);
  await until(() => session !== undefined, "the publisher");
  // Longer than it may be idle, in which it is looked at again and again.
  for (let i = 0; i < 10; i++) {
    clock.passes(100);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.ok(packets < 1_000, `${packets} packets came through`);
  assert.ok(socket.writableLength > 0);
  session!.resumeReading();
  await until(() => packets === total, "the rest");
  socket.destroy();
  await server.close();
});
