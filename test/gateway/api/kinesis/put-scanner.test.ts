/** The scanner of PutRecords against JSON.parse and checkShape: the same columns, or none. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { streamArnField, streamNameField } from "../../../../gateway/api/kinesis/account.ts";
import { type PutRequest, requestOf } from "../../../../gateway/api/kinesis/put-columns.ts";
import { scanPutRecords } from "../../../../gateway/api/kinesis/put-scanner.ts";
import { checkShape } from "../../../../gateway/api/kinesis/shape.ts";

const plain = (body: Buffer): PutRequest | undefined => {
  try {
    return requestOf(JSON.parse(body.toString("utf8")));
  } catch {
    return undefined;
  }
};

/** With the names checked as PutRecords checks them of every request. */
const scan = (body: Buffer): PutRequest | undefined => {
  const scanned = scanPutRecords(body);
  if (scanned === undefined) return undefined;
  const names = { StreamName: scanned.streamName, StreamARN: scanned.streamArn };
  try {
    checkShape(names, { StreamName: streamNameField, StreamARN: streamArnField });
    return scanned;
  } catch {
    return undefined;
  }
};

/** @returns whether the scanner took it */
function agrees(body: Buffer): boolean {
  const scanned = scan(body);
  if (scanned !== undefined) assert.deepEqual(scanned, plain(body), body.toString());
  return scanned !== undefined;
}

const space = fc.constantFrom("", "", "", " ", "\n\t");
const base64 = fc.oneof(
  { weight: 8, arbitrary: fc.uint8Array({ maxLength: 20 }).map((b) => Buffer.from(b).toString("base64")) },
  fc.constantFrom("ab==", "abc=", "-_-_", "a===", "ab=c", "abcde", "=", "a b=", "AA==AAAA", "AQ==", "AR=="),
);
const key = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom("k", "device-1", "k".repeat(256)) },
  fc.constantFrom("", "k".repeat(257), 'a"b', "a\\b", "käse", "\u007f", "\n"),
);
const hash = fc.constantFrom("0", "5", "01", "-1", String(2n ** 128n - 1n), String(2n ** 128n), "x");
const member = fc.oneof(
  { weight: 9, arbitrary: fc.tuple(fc.constant("Data"), base64) },
  { weight: 9, arbitrary: fc.tuple(fc.constant("PartitionKey"), key) },
  { weight: 2, arbitrary: fc.tuple(fc.constant("ExplicitHashKey"), hash) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("Other"), fc.constant("x")) },
);
const good = fc
  .tuple(base64, key, fc.option(hash, { freq: 4, nil: undefined }), fc.boolean())
  .map(([data, k, h, turned]) => {
    const members: [string, string][] = [
      ["Data", data],
      ["PartitionKey", k],
    ];
    if (h !== undefined) members.push(["ExplicitHashKey", h]);
    return turned ? members.reverse() : members;
  });
const record = fc.oneof({ weight: 9, arbitrary: good }, fc.array(member, { maxLength: 4 }));
const body = fc
  .tuple(
    fc.array(record, { maxLength: 5 }),
    space,
    space,
    fc.constantFrom("StreamName", "StreamARN"),
    fc.boolean(),
  )
  .map(([records, a, b, name, first]) => {
    const list = records.map(
      (members) =>
        `{${a}${members.map(([m, v]) => `"${m}"${b}:${a}${JSON.stringify(v)}`).join(`${b},${a}`)}${b}}`,
    );
    const all = `"Records"${a}:${b}[${list.join(`${a},${b}`)}${a}]`;
    const text = name === "StreamName" ? "s" : "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    const named = `"${name}"${b}:"${text}"`;
    return Buffer.from(`${a}{${(first ? [named, all] : [all, named]).join(`${b},`)}${a}}${b}`);
  });

test("what the scanner takes is what the plain way finds", () => {
  let taken = 0;
  fc.assert(
    fc.property(body, (bytes) => {
      if (agrees(bytes)) taken++;
    }),
    { numRuns: 3_000 },
  );
  assert.ok(taken > 100, `it took ${taken}`);
});

test("nor does a body with a byte changed or cut off make a difference", () => {
  fc.assert(
    fc.property(body, fc.nat(), fc.nat(255), fc.boolean(), (bytes, at, byte, cut) => {
      const place = at % bytes.length;
      const changed = cut ? bytes.subarray(0, place) : Buffer.from(bytes);
      if (!cut) changed[place] = byte;
      agrees(changed);
    }),
    { numRuns: 3_000 },
  );
});

test("500 records as the SDK writes them are taken; 501 are not", () => {
  const of = (count: number): Buffer =>
    Buffer.from(
      JSON.stringify({
        Records: Array.from({ length: count }, (_, i) => ({
          Data: Buffer.alloc(200, i).toString("base64"),
          PartitionKey: `device-${i % 7}`,
        })),
        StreamName: "readings",
      }),
    );
  assert.equal(agrees(of(500)), true);
  assert.equal(agrees(of(501)), false);
});
