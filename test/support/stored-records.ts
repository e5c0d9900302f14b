/** What a gateway's stream holds, asked for as any AWS client would. */
import {
  GetRecordsCommand,
  GetShardIteratorCommand,
  KinesisClient,
  ListShardsCommand,
} from "@aws-sdk/client-kinesis";

export interface StreamAccess {
  readonly endpoint: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** How often each payload is in the stream. */
export async function storedRecords(
  { endpoint, credentials }: StreamAccess,
  stream: string,
): Promise<Map<string, number>> {
  const kinesis = new KinesisClient({ endpoint, region: "us-east-1", credentials });
  const found = new Map<string, number>();
  const { Shards = [] } = await kinesis.send(new ListShardsCommand({ StreamName: stream }));
  for (const { ShardId } of Shards) {
    const start = { StreamName: stream, ShardId, ShardIteratorType: "TRIM_HORIZON" } as const;
    let { ShardIterator } = await kinesis.send(new GetShardIteratorCommand(start));
    for (;;) {
      const answer = await kinesis.send(new GetRecordsCommand({ ShardIterator }));
      for (const { Data } of answer.Records ?? []) {
        const text = Buffer.from(Data!).toString();
        found.set(text, (found.get(text) ?? 0) + 1);
      }
      ShardIterator = answer.NextShardIterator;
      if (answer.MillisBehindLatest === 0 && answer.Records?.length === 0) break;
    }
  }
  kinesis.destroy();
  return found;
}
