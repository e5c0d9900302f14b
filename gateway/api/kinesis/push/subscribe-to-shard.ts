/** SubscribeToShard: finds the consumer, the shard and the position, and hands over to a subscription. */
import { ShardNotFoundError, StreamNotFoundError } from "../../../streams/streams.ts";
import { EVENT_STREAM } from "../../answers/event-stream.ts";
import type { Exchange } from "../../exchange.ts";
import { shardIdField } from "../account.ts";
import { consumerArnField, findConsumer } from "../consumer-arn.ts";
import { dryRunField, endDryRun } from "../dry-run.ts";
import type { StreamingOperation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { startOf } from "../shard-iterator.ts";

const shape = {
  ConsumerARN: { ...consumerArnField, required: true },
  DryRun: dryRunField,
  ShardId: { ...shardIdField, required: true },
  StartingPosition: {
    type: "structure",
    required: true,
    members: {
      SequenceNumber: { type: "string", pattern: "0|([1-9]\\d{0,128})" },
      Timestamp: { type: "timestamp" },
      Type: {
        type: "string",
        required: true,
        oneOf: ["AFTER_SEQUENCE_NUMBER", "LATEST", "AT_TIMESTAMP", "AT_SEQUENCE_NUMBER", "TRIM_HORIZON"],
      },
    },
  },
} as const satisfies Shape;

export const subscribeToShard: StreamingOperation = {
  async stream(context, body, exchange, codec, requestId) {
    const input = checkShape(body, shape);
    const { account, streams, subscriptions } = context;
    const { stream, reader } = findConsumer(account, streams, input.ConsumerARN);
    const shard = account.findShard(stream, input.ShardId);
    const { streamId } = account.settings(stream);
    const { Type, SequenceNumber, Timestamp } = input.StartingPosition;
    const { reply } = exchange;
    leaveWithClient(exchange);
    let from: number;
    try {
      from = await startOf(context, stream, shard, {
        ShardIteratorType: Type,
        ...(SequenceNumber !== undefined && { StartingSequenceNumber: SequenceNumber }),
        ...(Timestamp !== undefined && { Timestamp }),
      });
    } catch (error) {
      // It may have been deleted since it was found.
      if (error instanceof StreamNotFoundError || error instanceof ShardNotFoundError) {
        throw account.shardNotFound(stream, shard.shardId);
      }
      throw error;
    }
    endDryRun(input.DryRun);
    const headers = { "content-type": EVENT_STREAM, "x-amzn-requestid": requestId };
    await subscriptions.run({ place: { stream, streamId, shard, from }, reader, codec, reply, headers });
  },
};

/** Who ends their side of an HTTP/1.1 connection may still be given an answer, but no events for minutes. */
function leaveWithClient({ request, reply }: Exchange): void {
  if ("stream" in request) return;
  const { socket } = request;
  const leave = (): void => void reply.destroy();
  if (socket.readableEnded) leave();
  else {
    socket.once("end", leave);
    reply.once("close", () => socket.removeListener("end", leave));
  }
}
