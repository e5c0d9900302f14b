/** ChildShards: how a reader at the end of a closed shard hears where its records went on. */
import type { ShardId, Streams } from "../../streams/streams.ts";

export interface ChildShard {
  readonly ShardId: string;
  readonly ParentShards: readonly string[];
  readonly HashKeyRange: { readonly StartingHashKey: string; readonly EndingHashKey: string };
}

/** @throws StreamNotFoundError */
export function childShardsOf(streams: Streams, stream: string, parent: ShardId): ChildShard[] {
  return streams.children(stream, parent).map(({ shardId, parents, hashFrom, hashTo }) => ({
    ShardId: shardId,
    ParentShards: parents,
    HashKeyRange: { StartingHashKey: String(hashFrom), EndingHashKey: String(hashTo) },
  }));
}
