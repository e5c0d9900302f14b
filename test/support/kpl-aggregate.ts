/** An encoder of the KPL's aggregates that shares nothing with our reader: protobufjs and the published schema. */
import { createHash } from "node:crypto";
import protobuf from "protobufjs";

export const AggregatedRecord = protobuf
  .parse(
    `syntax = "proto2";
     message AggregatedRecord {
       repeated string partition_key_table = 1;
       repeated string explicit_hash_key_table = 2;
       repeated Record records = 3;
     }
     message Tag { required string key = 1; optional string value = 2; }
     message Record {
       required uint64 partition_key_index = 1;
       optional uint64 explicit_hash_key_index = 2;
       required bytes data = 3;
       repeated Tag tags = 4;
     }`,
    { keepCase: true },
  )
  .root.lookupType("AggregatedRecord");

export interface PackedRecord {
  readonly partitionKey: string;
  readonly explicitHash?: string;
  readonly data: Uint8Array;
  readonly tags?: readonly { key: string; value?: string }[];
}

/** As the library packs them: each key once, in tables. */
export function aggregate(records: readonly PackedRecord[]): Buffer {
  const keys = [...new Set(records.map((record) => record.partitionKey))];
  const hashes = [...new Set(records.flatMap((record) => record.explicitHash ?? []))];
  return envelope(
    AggregatedRecord.encode(
      AggregatedRecord.fromObject({
        partition_key_table: keys,
        explicit_hash_key_table: hashes,
        records: records.map((record) => ({
          partition_key_index: keys.indexOf(record.partitionKey),
          ...(record.explicitHash !== undefined && {
            explicit_hash_key_index: hashes.indexOf(record.explicitHash),
          }),
          data: Buffer.from(record.data),
          tags: record.tags ?? [],
        })),
      }),
    ).finish(),
  );
}

/** Magic and digest around any message. */
export function envelope(message: Uint8Array): Buffer {
  const digest = createHash("md5").update(message).digest();
  return Buffer.concat([Buffer.from("f3899ac2", "hex"), message, digest]);
}
