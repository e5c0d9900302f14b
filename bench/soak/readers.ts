/**
 * All that reads and compares: GetRecords at the tip and from the oldest record again and again, over
 * resharding from parents to children; SubscribeToShard for its five minutes, and cut off before;
 * the delivery's files, which are removed once they were read; the statement's results.
 */
import { readFile, rm } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import {
  DescribeStreamConsumerCommand,
  DescribeStreamSummaryCommand,
  type KinesisClient,
  ListShardsCommand,
  RegisterStreamConsumerCommand,
  type StartingPosition,
  SubscribeToShardCommand,
} from "@aws-sdk/client-kinesis";
import { deliveredObjects } from "../../test/support/delivered.ts";
import { Caller, type Door, sdkClient } from "./calls.ts";
import type { Ledger, View } from "./ledger.ts";
import type { Loops } from "./loops.ts";
import type { SoakPlace, StreamName } from "./soak-place.ts";

const MS = { tip: 250, moving: 250, replay: 250, secureReplay: 1_000, delivered: 5_000 };
/** Small enough that comparing a page does not keep those waiting who measure how long an answer takes. */
const PAGE = 1_000;
const CONSUMER = "soak";
/** The odd shards' subscriptions are left so early, the even ones' last until the gateway ends them. */
const LEAVES_AFTER_MS = 20_000;

interface Page {
  readonly Records: ReadonlyArray<{ readonly Data: string | Uint8Array }>;
  readonly MillisBehindLatest: number;
  readonly NextShardIterator?: string | null;
  readonly ChildShards?: ReadonlyArray<{ readonly ShardId: string; readonly ParentShards: string[] }> | null;
}

type Take = (data: Uint8Array) => void;

export class Readers {
  /** Subscriptions that were begun. */
  subscriptions = 0;
  /** Times that all of a stream was read from its oldest record on. */
  replays = 0;
  readonly #place: SoakPlace;
  readonly #ledger: Ledger;
  readonly #loops: Loops;
  readonly #callers: Caller[] = [];
  readonly #sdks: KinesisClient[] = [];

  constructor(place: SoakPlace, ledger: Ledger, loops: Loops) {
    this.#place = place;
    this.#ledger = ledger;
    this.#loops = loops;
  }

  async start(): Promise<void> {
    const { endpoint, secureEndpoint } = this.#place;
    const json = this.#caller(endpoint, "json", 4);
    const cbor = this.#caller(endpoint, "cbor", 4);
    await this.#tip("steady", json);
    await this.#tip("moving", json);
    await this.#tip("scaled", cbor);
    await this.#tip("sensors", cbor);
    await this.#tip("secure", this.#caller(secureEndpoint, "json", 4));
    await this.#windows(json);
    this.#replay("steady", this.#caller(endpoint, "json", 2), MS.replay);
    this.#replay("frames", this.#caller(endpoint, "cbor", 2), MS.replay);
    // With a handshake for each page.
    this.#replay("secure", this.#caller(secureEndpoint, "cbor", 0), MS.secureReplay);
    const sdk = this.#sdk(endpoint);
    await this.#push("plain", sdk);
    await this.#push("frames", sdk);
    await this.#push("secure", this.#sdk(secureEndpoint));
    const delivered = this.#ledger.view("delivered files", "sensors", true);
    this.#loops.every("delivered files", MS.delivered, () => this.#readDelivered(delivered));
  }

  /** When the loops are being stopped: it ends what they wait for. */
  close(): void {
    for (const sdk of this.#sdks) sdk.destroy();
    for (const caller of this.#callers) caller.close();
  }

  #caller(door: Door, codec: "json" | "cbor", connections: number): Caller {
    const caller = new Caller(door, codec, connections);
    this.#callers.push(caller);
    return caller;
  }

  #sdk(door: Door): KinesisClient {
    const sdk = sdkClient(door);
    this.#sdks.push(sdk);
    return sdk;
  }

  async #tip(stream: StreamName, caller: Caller): Promise<void> {
    const view = this.#ledger.view(`GetRecords of ${stream}`, stream, true);
    const follower = new Follower(caller, stream, (data) => view.take(data));
    await follower.start();
    this.#loops.every(view.name, MS.tip, async () => {
      await follower.turn(PAGE);
    });
  }

  /** From the oldest record to the tip, and from the oldest again. */
  #replay(stream: StreamName, caller: Caller, periodMs: number): void {
    let follower: Follower | undefined;
    this.#loops.every(`replay of ${stream}`, periodMs, async () => {
      if (follower === undefined) {
        const view = this.#ledger.view(`replay of ${stream}`, stream, false);
        follower = new Follower(caller, stream, (data) => view.take(data));
        await follower.start();
      }
      await follower.turn(PAGE);
      if (!follower.atTip) return;
      follower = undefined;
      this.replays++;
    });
  }

  /** Each window of a producer must begin where the one before ended, and count what lies between. */
  async #windows(caller: Caller): Promise<void> {
    const view = this.#ledger.view("the statement's windows", "sensors", false);
    const follower = new Follower(caller, "windows", (data) => {
      const { producer, n, low, high } = JSON.parse(Buffer.from(data).toString()) as {
        readonly producer: string;
        readonly n: number;
        readonly low: number;
        readonly high: number;
      };
      view.took(producer, low, high);
      const missing = high - low + 1 - n;
      if (missing === 0) return;
      if (missing > 0) this.#ledger.lost += missing;
      else this.#ledger.doubled -= missing;
      this.#ledger.find(view.name, `${producer} has ${n} from ${low} to ${high}`);
    });
    await follower.start();
    this.#loops.every(view.name, MS.tip, async () => {
      await follower.turn(PAGE);
    });
  }

  async #readDelivered(view: View): Promise<void> {
    for (const object of await deliveredObjects(this.#place.delivered)) {
      for (const line of gunzipSync(await readFile(object))
        .toString("latin1")
        .split("\n"))
        if (line !== "") view.take(Buffer.from(line, "latin1"));
      await rm(object);
    }
  }

  async #push(stream: StreamName, sdk: KinesisClient): Promise<void> {
    const view = this.#ledger.view(`SubscribeToShard of ${stream}`, stream, true);
    const found = await sdk.send(new DescribeStreamSummaryCommand({ StreamName: stream }));
    const named = { StreamARN: found.StreamDescriptionSummary!.StreamARN!, ConsumerName: CONSUMER };
    const { Consumer } = await sdk.send(new RegisterStreamConsumerCommand(named));
    for (let state: string | undefined; state !== "ACTIVE"; ) {
      const consumer = await sdk.send(new DescribeStreamConsumerCommand(named));
      state = consumer.ConsumerDescription?.ConsumerStatus;
      if (state !== "ACTIVE") await this.#loops.wait(100);
    }
    const { Shards = [] } = await sdk.send(new ListShardsCommand({ StreamName: stream }));
    Shards.forEach(({ ShardId }, i) => {
      let from: StartingPosition = { Type: "TRIM_HORIZON" };
      const leavesAfterMs = i % 2 === 1 ? LEAVES_AFTER_MS : Number.POSITIVE_INFINITY;
      this.#loops.every(`${view.name}, ${ShardId}`, 1_000, async () => {
        const input = { ConsumerARN: Consumer!.ConsumerARN!, ShardId: ShardId!, StartingPosition: from };
        const { EventStream } = await sdk.send(new SubscribeToShardCommand(input));
        this.subscriptions++;
        const began = performance.now();
        for await (const { SubscribeToShardEvent: event } of EventStream!) {
          for (const { Data } of event?.Records ?? []) view.take(Data!);
          const SequenceNumber = event?.ContinuationSequenceNumber;
          if (SequenceNumber !== undefined) from = { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber };
          if (this.#loops.stopped || performance.now() - began > leavesAfterMs) break;
        }
      });
    });
  }
}

/** Reads a stream shard by shard from its oldest record on; a child begins when all its parents have ended. */
export class Follower {
  /** Whether the last turn left nothing to read behind. */
  atTip = false;
  readonly #caller: Caller;
  readonly #stream: string;
  readonly #take: Take;
  readonly #iterators = new Map<string, string>();
  /** Parents that have not ended yet, of a child that waits for them. */
  readonly #waiting = new Map<string, Set<string>>();

  constructor(caller: Caller, stream: string, take: Take) {
    this.#caller = caller;
    this.#stream = stream;
    this.#take = take;
  }

  async start(): Promise<void> {
    const input = { StreamName: this.#stream, ShardFilter: { Type: "AT_TRIM_HORIZON" } };
    const { Shards } = await this.#caller.call<{ Shards: Array<{ ShardId: string }> }>("ListShards", input);
    for (const { ShardId } of Shards) await this.#begin(ShardId);
  }

  /** One page of each shard. Resolves with the number of records. */
  async turn(limit: number): Promise<number> {
    let atTip = true;
    const counts = [...this.#iterators].map(async ([shard, ShardIterator]) => {
      const page = await this.#caller.call<Page>("GetRecords", { ShardIterator, Limit: limit });
      for (const { Data } of page.Records) this.#take(this.#caller.bytes(Data));
      if (page.MillisBehindLatest > 0) atTip = false;
      if (page.NextShardIterator) this.#iterators.set(shard, page.NextShardIterator);
      else await this.#end(shard, page);
      return page.Records.length;
    });
    // All of them first: a turn must not begin while a page of the one before is on its way.
    const turned = await Promise.allSettled(counts);
    const failed = turned.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    this.atTip = atTip;
    return turned.reduce((sum, one) => sum + (one.status === "fulfilled" ? one.value : 0), 0);
  }

  async #begin(shard: string): Promise<void> {
    const input = { StreamName: this.#stream, ShardId: shard, ShardIteratorType: "TRIM_HORIZON" };
    const answer = await this.#caller.call<{ ShardIterator: string }>("GetShardIterator", input);
    this.#iterators.set(shard, answer.ShardIterator);
  }

  async #end(shard: string, { ChildShards }: Page): Promise<void> {
    this.#iterators.delete(shard);
    for (const { ShardId, ParentShards } of ChildShards ?? []) {
      const parents = this.#waiting.get(ShardId) ?? new Set(ParentShards);
      this.#waiting.set(ShardId, parents);
      parents.delete(shard);
      if (parents.size > 0) continue;
      this.#waiting.delete(ShardId);
      await this.#begin(ShardId);
    }
  }
}
