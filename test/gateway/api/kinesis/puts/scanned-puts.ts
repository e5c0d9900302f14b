/** What the scanners of PutRecords are held to: they find what the plain way finds, or nothing. */
import assert from "node:assert/strict";
import { streamArnField, streamNameField } from "../../../../../gateway/api/kinesis/account.ts";
import { type PutRequest, requestOf } from "../../../../../gateway/api/kinesis/puts/put-columns.ts";
import { checkShape } from "../../../../../gateway/api/kinesis/shape.ts";
import { md5 } from "../../../../../gateway/streams/md5.ts";

type Scan = (body: Buffer) => PutRequest | undefined;

/**
 * @param decode the plain way, up to an object
 * @returns whether the scanner took it
 */
export function agrees(body: Buffer, scan: Scan, decode: (body: Buffer) => unknown): boolean {
  const scanned = withNamesChecked(scan(body));
  if (scanned === undefined) return false;
  const { hashWords, ...columns } = scanned.columns;
  assert.deepEqual({ ...scanned, columns }, plainly(body, decode), body.toString("latin1"));
  assert.equal(hashWords === undefined, columns.hashes !== undefined);
  if (hashWords !== undefined) assert.deepEqual(hashWords, wordsOf(columns.keys));
  return true;
}

function plainly(body: Buffer, decode: (body: Buffer) => unknown): PutRequest | undefined {
  try {
    return requestOf(decode(body));
  } catch {
    return undefined;
  }
}

/** As PutRecords checks them of every request. */
function withNamesChecked(scanned: PutRequest | undefined): PutRequest | undefined {
  if (scanned === undefined) return undefined;
  const names = { StreamName: scanned.streamName, StreamARN: scanned.streamArn };
  try {
    checkShape(names, { StreamName: streamNameField, StreamARN: streamArnField });
    return scanned;
  } catch {
    return undefined;
  }
}

function wordsOf(keys: readonly string[]): Uint32Array {
  return Uint32Array.from(
    keys.flatMap((key) => [0, 8, 16, 24].map((at) => Number.parseInt(md5(key).slice(at, at + 8), 16))),
  );
}
