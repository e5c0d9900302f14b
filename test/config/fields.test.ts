import assert from "node:assert/strict";
import { isIP } from "node:net";
import test from "node:test";
import fc from "fast-check";
import { bindHost, bytes, isLoopback } from "../../config/fields.ts";

const size = bytes("1MiB");
const UNITS = { "": 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;

/** The size, or why there is none. */
function read(value: unknown): number | string {
  const parsed = size.safeParse(value);
  return parsed.success ? parsed.data : parsed.error.issues[0]!.message;
}

test("a size of less than a byte is refused, and says so", () => {
  for (const value of [0, 0.4, "0", "0MiB", "0.4", "0.49 B", "0.0001KiB", "0.0000000000001TiB"]) {
    assert.match(
      String(read(value)),
      /is less than a byte; write bytes or a number with B, KiB/,
      String(value),
    );
  }
  assert.equal(read(0.5), 1);
  assert.equal(read("0.0005KiB"), 1);
  assert.equal(read(undefined), 1_048_576);
});

test("a number with a unit is so many bytes, rounded, or is refused where none or too many are left", () => {
  const amount = fc.oneof(
    fc.nat().map(String),
    fc.tuple(fc.nat(9_999), fc.stringMatching(/^[0-9]{1,12}$/)).map(([whole, part]) => `${whole}.${part}`),
    fc.stringMatching(/^[0-9]{1,25}$/),
  );
  const unit = fc.constantFrom(...(Object.keys(UNITS) as (keyof typeof UNITS)[]));
  const space = fc.constantFrom("", " ", "\t  ");
  fc.assert(
    fc.property(amount, unit, space, (number, sign, between) => {
      const expected = Math.round(Number(number) * UNITS[sign]);
      const found = read(`${between}${number}${between}${sign}${between}`);
      if (expected >= 1 && Number.isSafeInteger(expected)) assert.equal(found, expected);
      else assert.match(String(found), expected === 0 ? /is less than a byte;/ : /is no size;/);
    }),
    { numRuns: 2_000 },
  );
});

test("whatever is given, it is a whole number of bytes, of at least one, or refused", () => {
  const hostile = fc.oneof(
    fc.double(),
    fc.integer(),
    fc.string(),
    fc.stringMatching(/^[-+.0-9eE xKMGTiB]{1,12}$/),
    fc.anything(),
  );
  fc.assert(
    fc.property(hostile, (value) => {
      const found = read(value);
      if (typeof found === "number") assert.ok(Number.isSafeInteger(found) && found >= 1, String(found));
      else assert.ok(found.length > 0);
    }),
    { numRuns: 5_000 },
  );
});

test("loopback is what only this machine can reach, however it is written, and no name but localhost", () => {
  const own = [
    "localhost",
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "0:0:0:0:0:0:0:1",
    "0000::0001",
    "::0.0.0.1",
  ];
  for (const host of [...own, "::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:ffff:127.9.9.9"])
    assert.equal(isLoopback(host), true, host);
  const others = [
    "",
    "0.0.0.0",
    "::",
    "128.0.0.1",
    "::ffff:10.0.0.1",
    "::2",
    "fe80::1",
    "1::1",
    "64:ff9b::7f00:1",
  ];
  const names = [
    "127.0.0.1.example",
    "127.999.0.1",
    "127.1",
    "0127.0.0.1",
    "localhost.example",
    "[::1]",
    "::1%lo",
  ];
  for (const host of [...others, ...names]) assert.equal(isLoopback(host), false, host);
});

test("whatever is no address is no loopback, but for localhost", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.domain(), fc.stringMatching(/^127[0-9.:]{1,14}$/)), (host) => {
      if (isIP(host) === 0) assert.equal(isLoopback(host), host === "localhost");
    }),
  );
  fc.assert(fc.property(fc.ipV4(), (ip) => assert.equal(isLoopback(ip), ip.startsWith("127."))));
  fc.assert(fc.property(fc.ipV4(), (ip) => assert.equal(isLoopback(`::ffff:${ip}`), ip.startsWith("127."))));
});

test("an address in brackets is refused with what would be accepted", () => {
  for (const host of ["[::1]", "[::1]:8080"])
    assert.match(bindHost.safeParse(host).error!.issues[0]!.message, /without brackets here, such as ::1/);
  assert.equal(bindHost.safeParse("::1").success, true);
});
