import assert from "node:assert/strict";
import test from "node:test";
import type { ReaderSession } from "../../../protocol/rtsp/handler.ts";
import { Relay } from "../../../protocol/rtsp/relay.ts";
import { encodeApp, encodeSenderReport } from "../../../protocol/rtsp/rtcp.ts";
import { encodeRtp } from "../../../protocol/rtsp/rtp.ts";

const SDP = "v=0\nm=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:streamid=0\n";

/** A reader on a network that takes packets only when told. */
class FakeReader {
  readonly packets: number[] = [];
  readonly reports: Buffer[] = [];
  roomPackets = Number.POSITIVE_INFINITY;
  closedBecause: string | undefined;
  #ready: (() => void) | undefined;
  readonly session: ReaderSession;

  constructor(relay: Relay) {
    this.session = {
      ...{ id: "1", path: "yard", user: undefined, remoteAddress: "", description: relay.description },
      close: (reason) => {
        this.closedBecause = reason;
      },
      sendRtp: (_track, rtp) => {
        if (this.roomPackets === 0) return false;
        this.roomPackets--;
        this.packets.push(rtp.readUInt16BE(2));
        return true;
      },
      sendRtcp: (_track, bytes) => {
        this.reports.push(bytes);
        return true;
      },
      backlogBytes: () => 0,
      whenReady: (ready) => {
        this.#ready = ready;
      },
    };
  }

  drain(packets: number): void {
    this.roomPackets = packets;
    const ready = this.#ready;
    this.#ready = undefined;
    ready?.();
  }
}

/** Groups of five pictures, one packet each; packet n has sequence number n. */
function feed(relay: Relay, from: number, to: number, bytes = 100): void {
  for (let n = from; n <= to; n++) {
    const payload = Buffer.alloc(bytes, n % 5 === 0 ? 0x65 : 0x41);
    relay.packet(
      0,
      encodeRtp({ marker: true, payloadType: 96, sequence: n, timestamp: n * 6_000, ssrc: 1 }, payload),
    );
  }
}

test("a joiner gets the last report and begins at the key frame; the parameter sets are in its description", () => {
  const relay = new Relay({ sdp: SDP });
  const report = encodeSenderReport({ ssrc: 1, utcUs: 1e15, rtpTime: 1, packetCount: 1, octetCount: 1 });
  relay.rtcp(0, report);
  relay.rtcp(0, encodeApp({ ssrc: 1, subtype: 1, name: "HWTR", data: Buffer.alloc(28) }));
  feed(relay, 0, 12);
  const reader = new FakeReader(relay);
  const playback = relay.play(reader.session);
  assert.deepEqual(reader.packets, []);
  playback.start();
  assert.deepEqual(reader.packets, [10, 11, 12]);
  assert.deepEqual(reader.reports, [report]);
  feed(relay, 13, 16);
  assert.deepEqual(reader.packets, [10, 11, 12, 13, 14, 15, 16]);
  assert.match(relay.sdp, /a=control:trackID=0/);
  assert.equal(relay.readers, 1);
  playback.close("paused");
  assert.equal(relay.readers, 0);
});

test("who joins before the first key frame waits for it", () => {
  const relay = new Relay({ sdp: SDP });
  feed(relay, 1, 3);
  const reader = new FakeReader(relay);
  relay.play(reader.session).start();
  assert.deepEqual(reader.packets, []);
  feed(relay, 4, 6);
  assert.deepEqual(reader.packets, [5, 6]);
});

test("a relay that stands for a camera shows a joiner nothing of the past", () => {
  const relay = new Relay({ sdp: SDP, replaysGroup: false });
  feed(relay, 0, 7);
  const reader = new FakeReader(relay);
  relay.play(reader.session).start();
  assert.deepEqual(reader.packets, []);
  feed(relay, 8, 11);
  assert.deepEqual(reader.packets, [10, 11]);
});

test("a slow reader finishes the group before; a slower one goes on at the newest key frame", () => {
  const relay = new Relay({ sdp: SDP });
  feed(relay, 0, 1);
  const reader = new FakeReader(relay);
  relay.play(reader.session).start();
  reader.roomPackets = 1;
  feed(relay, 2, 7);
  assert.deepEqual(reader.packets, [0, 1, 2]);
  reader.drain(3);
  assert.deepEqual(reader.packets, [0, 1, 2, 3, 4, 5]);
  feed(relay, 8, 17);
  assert.equal(relay.skippedGroups, 1);
  reader.drain(100);
  assert.deepEqual(reader.packets.slice(6), [15, 16, 17]);
});

test("a group without end is not kept without end, and nobody joins in its middle", () => {
  const relay = new Relay({ sdp: SDP, maxGroupBytes: 1_000 });
  const early = new FakeReader(relay);
  relay.play(early.session).start();
  feed(relay, 0, 0);
  for (let n = 1; n < 100; n++) {
    const fields = { marker: true, payloadType: 96, sequence: n, timestamp: n, ssrc: 1 };
    relay.packet(0, encodeRtp(fields, Buffer.alloc(100, 0x41)));
  }
  assert.equal(early.packets.length, 100);
  const late = new FakeReader(relay);
  relay.play(late.session).start();
  assert.deepEqual(late.packets, []);
  feed(relay, 100, 101);
  assert.deepEqual(late.packets, [100, 101]);
  assert.deepEqual(early.packets.slice(100), [100, 101]);
});

test("reports without pictures are not kept without end", () => {
  const relay = new Relay({ sdp: SDP, maxGroupBytes: 10_000 });
  feed(relay, 0, 0);
  const report = encodeSenderReport({ ssrc: 1, utcUs: 1e15, rtpTime: 1, packetCount: 1, octetCount: 1 });
  for (let n = 0; n < 10_000; n++) relay.rtcp(0, report);
  const joiner = new FakeReader(relay);
  relay.play(joiner.session).start();
  assert.ok(joiner.reports.length <= 360, `${joiner.reports.length} reports`);
  feed(relay, 1, 5);
  assert.deepEqual(joiner.packets, [5]);
});

test("packets of a few bytes count with what they cost", () => {
  const relay = new Relay({ sdp: SDP, maxGroupBytes: 10_000 });
  feed(relay, 0, 0);
  for (let n = 1; n < 500; n++) {
    const fields = { marker: true, payloadType: 96, sequence: n, timestamp: 0, ssrc: 1 };
    relay.packet(0, encodeRtp(fields, Buffer.of(0x41)));
  }
  const joiner = new FakeReader(relay);
  relay.play(joiner.session).start();
  assert.ok(joiner.packets.length < 150, `${joiner.packets.length} packets`);
});

test("readers leave with the publisher", () => {
  const relay = new Relay({ sdp: SDP });
  const reader = new FakeReader(relay);
  relay.play(reader.session).start();
  const waiting = new FakeReader(relay);
  const playback = relay.play(waiting.session);
  relay.close("the publisher left");
  assert.equal(reader.closedBecause, "the publisher left");
  playback.start();
  assert.equal(waiting.closedBecause, "the publisher left");
  feed(relay, 0, 1);
  assert.deepEqual(reader.packets, []);
});
