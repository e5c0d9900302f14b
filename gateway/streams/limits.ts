/** How large streams, and what is in them, may be. */

/** Of one record's data and key, unless a stream is set to admit more; and as much as that may be, as AWS allows. */
export const DEFAULT_MAX_RECORD_BYTES = 1_048_576;
export const MAX_RECORD_BYTES = 10 * 1_048_576;

/** Open shards of one stream; what gateway.yaml admits as well. */
export const MAX_SHARDS = 4_096;

/** What AWS allows a shard in a second; also what it takes here with room to spare. */
export const SHARD_BYTES_PER_SECOND = 1_048_576;
export const SHARD_RECORDS_PER_SECOND = 1_000;
