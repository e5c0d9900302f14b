/** A subscription to the first shard, as a client has it. */
import { type KinesisClient, SubscribeToShardCommand } from "@aws-sdk/client-kinesis";

/** One that is read in the background until it ends. */
export class Subscribed {
  readonly texts: string[] = [];
  /** The name of the exception that ended it. */
  ended: string | undefined;

  static async to(client: KinesisClient, ConsumerARN: string): Promise<Subscribed> {
    const command = new SubscribeToShardCommand({
      ConsumerARN,
      ShardId: "shardId-000000000000",
      StartingPosition: { Type: "LATEST" },
    });
    const { EventStream } = await client.send(command);
    const subscribed = new Subscribed();
    void subscribed.#read(EventStream!);
    return subscribed;
  }

  async #read(events: AsyncIterable<{ SubscribeToShardEvent?: { Records?: unknown } }>): Promise<void> {
    try {
      for await (const { SubscribeToShardEvent } of events) {
        const records = (SubscribeToShardEvent?.Records ?? []) as { Data: Uint8Array }[];
        for (const { Data } of records) this.texts.push(Buffer.from(Data).toString());
      }
      this.ended = "peace";
    } catch (error) {
      this.ended = (error as Error).name;
    }
  }
}
