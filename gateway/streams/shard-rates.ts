/** What AWS allows a shard in a second; also what it takes here with room to spare. */
export const SHARD_BYTES_PER_SECOND = 1_048_576;
export const SHARD_RECORDS_PER_SECOND = 1_000;
