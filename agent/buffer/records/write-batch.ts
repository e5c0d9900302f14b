/**
 * What LevelDB writes into its log for one batch, read back without LevelDB.
 *
 * Format (LevelDB, db/write_batch.cc): u64 sequence | u32 count, both little-endian; then a record
 * each: u8 1 | key | value for a put, u8 0 | key for a deletion; keys and values as varint32 length
 * and bytes.
 */
const HEAD_BYTES = 12;
const DELETION = 0;
const PUT = 1;

export interface BatchEntry {
  readonly key: string;
  /** A view; undefined where the key was deleted. */
  readonly value: Buffer | undefined;
}

/** @returns undefined for bytes that are no batch */
export function decodeWriteBatch(bytes: Buffer): BatchEntry[] | undefined {
  if (bytes.length < HEAD_BYTES) return undefined;
  const count = bytes.readUInt32LE(8);
  const entries: BatchEntry[] = [];
  let at = HEAD_BYTES;
  /** The next length-prefixed bytes. */
  const slice = (): Buffer | undefined => {
    let length = 0;
    for (let shift = 0; shift <= 28; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) return undefined;
      length += (byte & 0x7f) * 2 ** shift;
      if (byte >= 0x80) continue;
      const from = at;
      at += length;
      return at > bytes.length ? undefined : bytes.subarray(from, at);
    }
    return undefined;
  };
  while (at < bytes.length) {
    const tag = bytes[at++];
    if (tag !== PUT && tag !== DELETION) return undefined;
    const key = slice();
    const value = tag === PUT ? slice() : undefined;
    if (key === undefined || (tag === PUT && value === undefined)) return undefined;
    entries.push({ key: key.toString("utf8"), value });
  }
  return entries.length === count ? entries : undefined;
}
