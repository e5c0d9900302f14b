import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  formatClockRange,
  formatTransport,
  parseClockRange,
  parseSession,
  parseTransport,
  pathOf,
} from "../../../protocol/rtsp/transport.ts";

test("a producer's time survives Range: clock= to the microsecond", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4_102_444_800_000_000 }), (utcUs) => {
      assert.equal(parseClockRange(formatClockRange(utcUs)), utcUs);
    }),
  );
  assert.equal(formatClockRange(1_795_255_483_000_007), "clock=20261121T100443.000007Z-");
  assert.equal(parseClockRange("clock=19961108T142300.25Z-19961108T143520Z"), 847_462_980_250_000);
  for (const other of [
    "npt=0.000-",
    "npt=now-",
    "clock=20269999T000000Z-",
    "clock=",
    "",
    "clock=20261121T0940Z",
    "clock=19691231T235959.5Z-",
    "clock=00000101T000000Z-",
    "clock=99991231T235959Z-",
  ]) {
    assert.equal(parseClockRange(other), undefined);
  }
});

test("of the transports offered, RTP on this connection is taken", () => {
  const both = "RTP/AVP;unicast;client_port=5000-5001, RTP/AVP/TCP;unicast;interleaved=2-3;mode=record";
  assert.deepEqual(parseTransport(both), { channels: { rtp: 2, rtcp: 3 } });
  assert.deepEqual(parseTransport("RTP/AVP/TCP;unicast"), { channels: undefined });
  assert.deepEqual(parseTransport("RTP/AVP/TCP;interleaved=255"), { channels: undefined });
  assert.equal(parseTransport("RTP/AVP;unicast;client_port=1-2"), undefined);
  assert.equal(parseTransport("RTP/AVP/UDP"), undefined);
  assert.deepEqual(parseTransport(formatTransport({ rtp: 6, rtcp: 7 }, "record")), {
    channels: { rtp: 6, rtcp: 7 },
  });
});

test("a session's timeout is 60 seconds unless told", () => {
  assert.deepEqual(parseSession("abc"), { id: "abc", timeoutSeconds: 60 });
  assert.deepEqual(parseSession("abc ; timeout=0"), { id: "abc", timeoutSeconds: 1 });
  assert.deepEqual(parseSession("abc;timeout=30"), { id: "abc", timeoutSeconds: 30 });
});

test("a path is what it seems, or there is none", () => {
  assert.equal(pathOf("rtsp://user:pass@host:554/pi-1/yard/?x=1#y"), "pi-1/yard");
  assert.equal(pathOf("rtsp://[::1]:8554/a%20b"), "a b");
  assert.equal(pathOf("rtsp://host"), "");
  assert.equal(pathOf("*"), "");
  assert.equal(pathOf("/yard"), "yard");
  for (const bad of [
    "yard",
    "rtsp://h/../x",
    "rtsp://h/%2e%2e/x",
    "rtsp://h/%zz",
    "rtsp://h/a%00b",
    "rtsp://h/a%5cb",
  ]) {
    assert.equal(pathOf(bad), undefined, bad);
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      const path = pathOf(`rtsp://h/${text}`);
      assert.ok(path === undefined || !path.split("/").includes(".."));
    }),
  );
});

test("an address of slashes takes no longer than another", () => {
  const before = process.cpuUsage();
  for (let i = 0; i < 100; i++) {
    assert.equal(pathOf(`rtsp://h/a${"/".repeat(8_000)}x`), undefined);
    assert.equal(pathOf(`rtsp://h/${"/".repeat(4_000)}x${"/".repeat(4_000)}`), "x");
  }
  // Our own work alone: others may have the processor meanwhile.
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 2_000_000, `${user + system} µs`);
});
