/** The scanner of PutRecords against JSON.parse and checkShape: the same columns, or none. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { scanPutRecords } from "../../../../../gateway/api/kinesis/puts/put-scanner.ts";
import { agrees } from "./scanned-puts.ts";

const parse = (body: Buffer): unknown => JSON.parse(body.toString("utf8"));

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
      if (agrees(bytes, scanPutRecords, parse)) taken++;
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
      agrees(changed, scanPutRecords, parse);
    }),
    { numRuns: 3_000 },
  );
});

interface Written {
  readonly Data: string;
  readonly PartitionKey: string;
}
const many = (count: number, size: number): Written[] =>
  Array.from({ length: count }, (_, i) => ({
    Data: Buffer.alloc(size + (i % 3), i).toString("base64"),
    PartitionKey: `device-${i % 7}`,
  }));
const bodyOf = (records: readonly Written[], write = JSON.stringify): Buffer =>
  Buffer.from(write({ Records: records, StreamName: "readings" }));
/** As Python's json.dumps writes: with a space behind each colon and comma. */
const python = (value: unknown): string => JSON.stringify(value, undefined, 1).replace(/\n */g, " ");

test("500 records as SDKs write them are taken, whatever their size; 501 are not", () => {
  for (const size of [0, 200, 3_000]) {
    const records = many(500, size);
    const turned = records.map(({ Data, PartitionKey }) => ({ PartitionKey, Data }));
    for (const each of [bodyOf(records), bodyOf(turned), bodyOf(records, python), bodyOf(turned, python)]) {
      assert.equal(agrees(each, scanPutRecords, parse), true);
    }
  }
  assert.equal(agrees(bodyOf(many(501, 200)), scanPutRecords, parse), false);
});

test("a record in the midst of its likes that is written otherwise is read as it is", () => {
  const plainly = bodyOf(many(9, 20)).toString();
  const places = ['"PartitionKey"', '","', '"}', "},{", '"Data":"', "=="];
  const puts = [" ", "\n", '"', "\\", "x", ",", "{", "}", '"ExplicitHashKey":"7",', '"Data":"",', "="];
  for (const place of places) {
    for (let at = plainly.indexOf(place); at >= 0; at = plainly.indexOf(place, at + 1)) {
      for (const put of puts) {
        for (const end of [at, at + place.length]) {
          const changed = plainly.slice(0, end) + put + plainly.slice(end);
          agrees(Buffer.from(changed), scanPutRecords, parse);
          agrees(Buffer.from(plainly.slice(0, end) + put + plainly.slice(end + 1)), scanPutRecords, parse);
        }
      }
    }
  }
});
