/** Names as AWS writes them: ARNs, and the stream and shard that a request means. */
import {
  type ShardDescription,
  ShardNotFoundError,
  type StreamDescription,
  StreamNotFoundError,
  type StreamSettings,
  type Streams,
} from "../../streams/streams.ts";
import { AwsError, invalidArgument, notFound } from "../aws-error.ts";
import type { TextField } from "./shape.ts";

export const streamNameField = {
  type: "string",
  pattern: "[a-zA-Z0-9_.-]+",
  minLength: 1,
  maxLength: 128,
} as const satisfies TextField;

/** Of a request that may name its stream by `StreamARN` as well. */
export const namedStreamField = {
  ...streamNameField,
  requiredWithout: "StreamARN",
} as const satisfies TextField;

export const streamArnField = {
  type: "string",
  pattern: "arn:aws.*:kinesis:.*:\\d{12}:stream/\\S+",
  minLength: 1,
  maxLength: 2_048,
} as const satisfies TextField;

/** Of a stream, or of a consumer. */
export const resourceArnField = {
  type: "string",
  pattern: "arn:aws.*:kinesis:.*:\\d{12}:.*stream/\\S+",
  // A lookahead is not entered again: what leaves the most for the rest is found first, and is enough.
  quickPattern: /^arn:aws(?=(.*?:kinesis:))\1(?=(.*?:\d{12}:))\2.*stream\/\S+$/,
  minLength: 1,
  maxLength: 2_048,
} as const satisfies TextField;

export const shardIdField = streamNameField;
export const consumerNameField = streamNameField;

const MAX_SHARD_INDEX = 2_147_483_647;

export class Account {
  readonly #streams: Streams;
  /** As it stands in ARNs and must stand in signatures. */
  readonly region = "us-east-1";
  readonly accountId = "000000000000";

  constructor(streams: Streams) {
    this.#streams = streams;
  }

  arnOf(streamName: string): string {
    return `arn:aws:kinesis:${this.region}:${this.accountId}:stream/${streamName}`;
  }

  /**
   * The stream that a request means by name, by ARN, or by both alike.
   * @throws AwsError
   */
  streamNameOf(input: { readonly StreamName?: string; readonly StreamARN?: string }): string {
    const { StreamName: name, StreamARN: arn } = input;
    if (arn === undefined) {
      if (name !== undefined) return name;
      throw new AwsError(
        "ValidationException",
        "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null",
      );
    }
    const parts = /^arn:(aws[^:]*):kinesis:([^:]*):(\d{12}):stream\/([a-zA-Z0-9_.-]{1,128})$/.exec(arn);
    if (parts === null || parts[1] !== "aws" || parts[2] !== this.region || parts[3] !== this.accountId) {
      throw notFound(
        `Stream ${arn.slice(0, 300)} is not of this account and region (${this.arnOf("NAME")}).`,
      );
    }
    if (name !== undefined && name !== parts[4]) {
      throw invalidArgument(`StreamARN ${arn} and StreamName ${name} do not name the same stream.`);
    }
    return parts[4]!;
  }

  /** What it is, without its shards. @throws AwsError ResourceNotFoundException */
  settings(streamName: string): StreamSettings {
    try {
      return this.#streams.settings(streamName);
    } catch (error) {
      throw error instanceof StreamNotFoundError ? this.streamNotFound(streamName) : error;
    }
  }

  /** All streams, sorted by name; but for one that another gateway before the same cluster is just deleting. */
  allSettings(): StreamSettings[] {
    return this.#streams.listStreams().flatMap((name) => {
      try {
        return [this.#streams.settings(name)];
      } catch (error) {
        if (error instanceof StreamNotFoundError) return [];
        throw error;
      }
    });
  }

  /**
   * @param createdSeconds tells it from an earlier stream of that name. Some SDKs send whole seconds, so
   *   its fraction does not count.
   * @throws AwsError ResourceNotFoundException
   */
  describe(streamName: string, createdSeconds?: number): StreamDescription {
    let stream: StreamDescription;
    try {
      stream = this.#streams.describe(streamName);
    } catch (error) {
      throw error instanceof StreamNotFoundError ? this.streamNotFound(streamName) : error;
    }
    if (createdSeconds === undefined) return stream;
    if (Math.floor(createdSeconds) === Math.floor(stream.createdMs / 1000)) return stream;
    throw this.streamNotFound(streamName);
  }

  /**
   * What `work` gives; a stream that went away meanwhile is told in AWS's words.
   * @throws AwsError ResourceNotFoundException
   */
  async found<T>(streamName: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw error instanceof StreamNotFoundError ? this.streamNotFound(streamName) : error;
    }
  }

  streamNotFound(streamName: string): AwsError {
    return notFound(`Stream ${streamName} under account ${this.accountId} not found.`);
  }

  shardNotFound(streamName: string, shardId: string): AwsError {
    return notFound(
      `Shard ${shardId} in stream ${streamName} under account ${this.accountId} does not exist`,
    );
  }

  /**
   * Kinesis reads only the number behind the first `-`, or a bare number.
   * @throws AwsError ResourceNotFoundException
   */
  shardIndexOf(streamName: string, shardName: string): number {
    const digits = shardName.split("-")[1] ?? shardName;
    const index = /^\d+$/.test(digits) ? Number(digits) : Number.NaN;
    if (!(index <= MAX_SHARD_INDEX)) throw this.#noSuchShard(streamName, shardName);
    return index;
  }

  shardNotInStream(streamName: string, index: number): AwsError {
    return this.#noSuchShard(streamName, shardIdOf(index));
  }

  #noSuchShard(streamName: string, shardName: string): AwsError {
    return notFound(
      `Could not find shard ${shardName} in stream ${streamName} under account ${this.accountId}.`,
    );
  }

  /** @throws AwsError ResourceNotFoundException */
  findShard(streamName: string, shardName: string): ShardDescription {
    const index = this.shardIndexOf(streamName, shardName);
    try {
      return this.#streams.shard(streamName, index);
    } catch (error) {
      const isMissing = error instanceof StreamNotFoundError || error instanceof ShardNotFoundError;
      throw isMissing ? this.shardNotFound(streamName, shardIdOf(index)) : error;
    }
  }
}

export function shardIdOf(index: number): string {
  return `shardId-${String(index).padStart(12, "0")}`;
}
