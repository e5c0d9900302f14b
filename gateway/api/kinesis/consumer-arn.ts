/**
 * How AWS names a registered consumer of enhanced fan-out: the stream's ARN, the consumer's name, and
 * when it was registered, so that a later consumer of the same name has an ARN of its own.
 *
 *   arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/CONSUMER:SECONDS
 */
import { type RegisteredReader, StreamNotFoundError, type Streams } from "../../streams/streams.ts";
import { notFound } from "../aws-error.ts";
import type { Account } from "./account.ts";
import type { TextField } from "./shape.ts";

export const consumerArnField = {
  type: "string",
  pattern: "^(arn):aws.*:kinesis:.*:\\d{12}:.*stream\\/[a-zA-Z0-9_.-]+\\/consumer\\/[a-zA-Z0-9_.-]+:[0-9]+",
  minLength: 1,
  maxLength: 2_048,
} as const satisfies TextField;

export interface ConsumerName {
  readonly stream: string;
  readonly consumer: string;
  readonly createdSeconds: number;
}

const PARTS =
  /^arn:aws:kinesis:([^:/]{1,64}):(\d{12}):stream\/([a-zA-Z0-9_.-]{1,128})\/consumer\/([a-zA-Z0-9_.-]{1,128}):(\d{1,13})$/;

export function formatConsumerArn(
  account: Account,
  stream: string,
  reader: Pick<RegisteredReader, "name" | "createdMs">,
): string {
  return `${account.arnOf(stream)}/consumer/${reader.name}:${Math.floor(reader.createdMs / 1000)}`;
}

/** Undefined for what is no consumer of this account and region. */
export function parseConsumerArn(account: Account, arn: string): ConsumerName | undefined {
  const parts = PARTS.exec(arn);
  if (parts === null || parts[1] !== account.region || parts[2] !== account.accountId) return undefined;
  return { stream: parts[3]!, consumer: parts[4]!, createdSeconds: Number(parts[5]) };
}

/**
 * The consumer that is registered under this very ARN.
 * @throws AwsError ResourceNotFoundException
 */
export function findConsumer(
  account: Account,
  streams: Streams,
  arn: string,
): { readonly stream: string; readonly reader: RegisteredReader } {
  const name = parseConsumerArn(account, arn);
  if (name === undefined) throw consumerNotFound(account, arn);
  let readers: readonly RegisteredReader[];
  try {
    readers = streams.registeredReaders(name.stream);
  } catch (error) {
    throw error instanceof StreamNotFoundError ? account.streamNotFound(name.stream) : error;
  }
  const reader = readers.find((candidate) => candidate.name === name.consumer);
  if (reader === undefined || Math.floor(reader.createdMs / 1000) !== name.createdSeconds) {
    throw consumerNotFound(account, arn);
  }
  return { stream: name.stream, reader };
}

export function consumerNotFound(account: Account, arn: string): ReturnType<typeof notFound> {
  return notFound(`Consumer ${arn.slice(0, 300)} under account ${account.accountId} not found.`);
}
