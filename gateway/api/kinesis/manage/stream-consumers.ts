/** Consumers of enhanced fan-out by name: register, deregister, describe, list. SubscribeToShard reads for them. */
import {
  ReaderExistsError,
  ReaderNotFoundError,
  type ReadersCheck,
  type RegisteredReader,
} from "../../../streams/streams.ts";
import { AwsError, invalidArgument, notFound } from "../../aws-error.ts";
import { consumerNameField, streamArnField } from "../account.ts";
import { consumerArnField, findConsumer, formatConsumerArn } from "../consumer-arn.ts";
import type { KinesisContext, Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";
import { Timestamp } from "../wire/codec.ts";
import { nextTokenField, openNextToken, sealNextToken } from "./next-token.ts";
import { newTags, tagsField } from "./tags.ts";

/** As AWS admits them for a stream. */
const MAX_CONSUMERS = 20;
const PAGE_CONSUMERS = 100;

const registerShape = {
  ConsumerName: { ...consumerNameField, required: true },
  StreamARN: { ...streamArnField, required: true },
  Tags: tagsField,
} as const satisfies Shape;

/** The consumer is ACTIVE by the time that this is answered. */
export const registerStreamConsumer: Operation = async (context, body) => {
  const input = checkShape(body, registerShape);
  const { account, streams } = context;
  const stream = account.streamNameOf(input);
  const name = input.ConsumerName;
  const tags = newTags(input.Tags, `consumer ${name} of stream ${stream}`);
  const check: ReadersCheck = (readers) => {
    if (readers.length < MAX_CONSUMERS) return;
    throw new AwsError(
      "LimitExceededException",
      `Stream ${stream} under account ${account.accountId} has ${MAX_CONSUMERS} registered consumers already, which is the limit.`,
    );
  };
  const reader = await context.turns.run(stream, async () => {
    account.settings(stream);
    try {
      return await account.found(stream, streams.registerReader(stream, name, tags, check));
    } catch (error) {
      throw error instanceof ReaderExistsError ? consumerExists(context, stream, name) : error;
    }
  });
  return { Consumer: consumerOf(context, stream, reader) };
};

function consumerExists(context: KinesisContext, stream: string, name: string): AwsError {
  return new AwsError(
    "ResourceInUseException",
    `Consumer ${name} of stream ${context.account.arnOf(stream)} already exists under account ${context.account.accountId}.`,
  );
}

const namedShape = {
  ConsumerARN: consumerArnField,
  ConsumerName: consumerNameField,
  StreamARN: streamArnField,
} as const satisfies Shape;

export const deregisterStreamConsumer: Operation = async (context, body) => {
  const { stream, reader } = namedConsumer(context, body);
  try {
    await context.account.found(stream, context.streams.deregisterReader(stream, reader.name));
  } catch (error) {
    // Another call was quicker.
    throw error instanceof ReaderNotFoundError ? consumerNotFound(context, stream, reader.name) : error;
  }
  return undefined;
};

export const describeStreamConsumer: Operation = async (context, body) => {
  const { stream, reader } = namedConsumer(context, body);
  return {
    ConsumerDescription: {
      ...consumerOf(context, stream, reader),
      StreamARN: context.account.arnOf(stream),
    },
  };
};

/** By its ARN, or by its name and the stream's ARN, or by all if they agree. */
function namedConsumer(
  context: KinesisContext,
  body: unknown,
): { readonly stream: string; readonly reader: RegisteredReader } {
  const input = checkShape(body, namedShape);
  const { ConsumerARN: arn, ConsumerName: name, StreamARN: streamArn } = input;
  if (arn !== undefined) {
    const found = findConsumer(context.account, context.streams, arn);
    const agrees =
      (name === undefined || name === found.reader.name) &&
      (streamArn === undefined || context.account.streamNameOf({ StreamARN: streamArn }) === found.stream);
    if (!agrees) {
      throw invalidArgument("ConsumerARN, ConsumerName and StreamARN do not name the same consumer.");
    }
    return found;
  }
  if (name === undefined || streamArn === undefined) {
    throw invalidArgument("Either ConsumerARN, or both StreamARN and ConsumerName must be provided.");
  }
  const stream = context.account.streamNameOf({ StreamARN: streamArn });
  context.account.settings(stream);
  const reader = context.streams.registeredReaders(stream).find((one) => one.name === name);
  if (reader === undefined) throw consumerNotFound(context, stream, name);
  return { stream, reader };
}

function consumerNotFound(context: KinesisContext, stream: string, name: string): AwsError {
  return notFound(
    `Consumer ${name} of stream ${stream} under account ${context.account.accountId} not found.`,
  );
}

const listShape = {
  MaxResults: { type: "integer", min: 1, max: 10_000 },
  NextToken: nextTokenField,
  StreamARN: { ...streamArnField, required: true },
  StreamCreationTimestamp: { type: "timestamp" },
} as const satisfies Shape;

export const listStreamConsumers: Operation = async (context, body) => {
  const input = checkShape(body, listShape);
  const stream = context.account.streamNameOf(input);
  const { streamId } = context.account.describe(stream, input.StreamCreationTimestamp);
  let start = "";
  if (input.NextToken !== undefined) {
    if (input.StreamCreationTimestamp !== undefined) {
      throw invalidArgument("NextToken and StreamCreationTimestamp cannot be provided together.");
    }
    const [sealedId, last] = openNextToken<[string, string]>(context, "consumers", input.NextToken);
    if (sealedId !== streamId) throw invalidArgument("NextToken is invalid.");
    start = last;
  }
  const after = context.streams.registeredReaders(stream).filter((reader) => reader.name > start);
  const page = after.slice(0, Math.min(input.MaxResults ?? PAGE_CONSUMERS, PAGE_CONSUMERS));
  return {
    Consumers: page.map((reader) => consumerOf(context, stream, reader)),
    ...(page.length < after.length && {
      NextToken: sealNextToken(context, "consumers", [streamId, page.at(-1)!.name]),
    }),
  };
};

function consumerOf(context: KinesisContext, stream: string, reader: RegisteredReader): object {
  return {
    ConsumerARN: formatConsumerArn(context.account, stream, reader),
    ConsumerCreationTimestamp: new Timestamp(reader.createdMs),
    ConsumerName: reader.name,
    ConsumerStatus: "ACTIVE",
  };
}
