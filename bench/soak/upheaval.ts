/** Streams that come and go, shards that are split and merged one by one and all at once, and calls that only look. */
import { randomBytes } from "node:crypto";
import { Caller } from "./calls.ts";
import type { Loops } from "./loops.ts";
import { Follower } from "./readers.ts";
import type { SoakPlace } from "./soak-place.ts";

const MS = { stream: 10_000, reshard: 15_000, scale: 30_000, look: 2_000 };
const RECORDS = 200;
const RECORD_BYTES = 2_000;
const MOVING = "moving";
const SCALED = "scaled";
/** Up and down, in turn: by whole splits and merges, and by ranges that must be cut anew. Each is at most double and at least half of the one before. */
const SCALES = [4, 3, 6, 5, 4, 2];
/** Between so many open shards it goes up and down. */
const SHARDS = { fewest: 2, most: 4 };
const ACTIVE_WITHIN_MS = 30_000;

interface Shard {
  readonly ShardId: string;
  readonly HashKeyRange: { readonly StartingHashKey: string; readonly EndingHashKey: string };
  readonly SequenceNumberRange: { readonly EndingSequenceNumber?: string };
}

export class Upheaval {
  streams = 0;
  reshards = 0;
  /** Times that UpdateShardCount was asked for. */
  scales = 0;
  readonly #loops: Loops;
  readonly #caller: Caller;
  #rising = true;

  constructor(place: SoakPlace, loops: Loops) {
    this.#loops = loops;
    this.#caller = new Caller(place.endpoint, "json", 4);
  }

  start(): void {
    this.#loops.every("a stream that comes and goes", MS.stream, () => this.#stream());
    this.#loops.every("resharding", MS.reshard, () => this.#reshard());
    this.#loops.every("scaling", MS.scale, () => this.#scale());
    this.#loops.every("looking", MS.look, () => this.#look());
  }

  close(): void {
    this.#caller.close();
  }

  async #stream(): Promise<void> {
    const StreamName = `passing-${this.streams++}`;
    await this.#caller.call("CreateStream", { StreamName, ShardCount: 2 });
    await this.#active(StreamName);
    const Data = randomBytes(RECORD_BYTES).toString("base64");
    const Records = Array.from({ length: RECORDS }, (_, i) => ({ PartitionKey: `key-${i}`, Data }));
    await this.#caller.call("PutRecords", { StreamName, Records });
    let read = 0;
    const follower = new Follower(this.#caller, StreamName, () => read++);
    await follower.start();
    while ((await follower.turn(RECORDS)) > 0);
    await this.#caller.call("DeleteStream", { StreamName, EnforceConsumerDeletion: true });
    if (read !== RECORDS) throw new Error(`${read} of ${RECORDS} records came back`);
  }

  async #active(StreamName: string): Promise<void> {
    const end = performance.now() + ACTIVE_WITHIN_MS;
    for (;;) {
      const { StreamDescriptionSummary } = await this.#caller.call<{
        StreamDescriptionSummary: { StreamStatus: string };
      }>("DescribeStreamSummary", { StreamName });
      if (StreamDescriptionSummary.StreamStatus === "ACTIVE") return;
      if (performance.now() > end) throw new Error(`${StreamName} does not become active`);
      await this.#loops.wait(50);
    }
  }

  /** Splits until there are many, merges until there are few. */
  async #reshard(): Promise<void> {
    const open = await this.#openShards(MOVING);
    if (open.length >= SHARDS.most) this.#rising = false;
    if (open.length <= SHARDS.fewest) this.#rising = true;
    const nth = Math.floor(Math.random() * (open.length - 1));
    const [first, second] = [open[nth]!, open[nth + 1]!];
    if (this.#rising) {
      const middle = (start(first) + BigInt(first.HashKeyRange.EndingHashKey)) / 2n + 1n;
      const input = { ShardToSplit: first.ShardId, NewStartingHashKey: String(middle) };
      await this.#caller.call("SplitShard", { StreamName: MOVING, ...input });
    } else {
      const input = { ShardToMerge: first.ShardId, AdjacentShardToMerge: second.ShardId };
      await this.#caller.call("MergeShards", { StreamName: MOVING, ...input });
    }
    await this.#active(MOVING);
    this.reshards++;
  }

  /** Afterwards the open shards have equal ranges, which cover every hash. */
  async #scale(): Promise<void> {
    const target = SCALES[this.scales % SCALES.length]!;
    const input = { TargetShardCount: target, ScalingType: "UNIFORM_SCALING" };
    await this.#caller.call("UpdateShardCount", { StreamName: SCALED, ...input });
    this.scales++;
    await this.#active(SCALED);
    const open = await this.#openShards(SCALED);
    let next = 0n;
    for (const shard of open) {
      if (start(shard) !== next)
        throw new Error(`${shard.ShardId} begins at ${start(shard)}, not at ${next}`);
      next = BigInt(shard.HashKeyRange.EndingHashKey) + 1n;
    }
    if (open.length !== target || next !== 1n << 128n)
      throw new Error(`${open.length} shards up to ${next}, not ${target} up to 2^128`);
  }

  /** By their ranges. */
  async #openShards(StreamName: string): Promise<Shard[]> {
    const { Shards } = await this.#caller.call<{ Shards: Shard[] }>("ListShards", {
      StreamName,
      ShardFilter: { Type: "AT_LATEST" },
    });
    return Shards.sort((a, b) => (start(a) < start(b) ? -1 : 1));
  }

  async #look(): Promise<void> {
    await this.#caller.call("ListStreams", {});
    await this.#caller.call("DescribeStream", { StreamName: MOVING });
    await this.#caller.call("DescribeStream", { StreamName: SCALED });
    await this.#caller.call("DescribeLimits", {});
    const metrics = await fetch(`http://127.0.0.1:${this.#caller.endpoint.port}/metrics`);
    await metrics.arrayBuffer();
    if (metrics.status !== 200) throw new Error(`/metrics answered ${metrics.status}`);
  }
}

function start({ HashKeyRange }: Shard): bigint {
  return BigInt(HashKeyRange.StartingHashKey);
}
