/** The consumers whose leases this gateway holds, and all that are known of a stream. */
import type { Clock } from "../../../../../runtime/clock.ts";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import {
  type Consumer,
  LeaseHeldError,
  type Offset,
  type ShardId,
  StreamNotFoundError,
  StreamsClosedError,
} from "../../../streams.ts";
import type { Documents } from "../cluster/documents.ts";
import type { Link } from "../cluster/link.ts";
import type { JetStreamStream } from "../log/jetstream-stream.ts";
import { type ConsumerRecord, type LeasedConsumer, openLeasedConsumer } from "./leased-consumer.ts";

export interface ConsumersOptions {
  readonly link: Link;
  readonly documents: Documents;
  readonly clock: Clock;
  readonly log: Log;
}

export class Consumers {
  readonly #options: ConsumersOptions;
  /** `stream/name` → the consumer; undefined while it is being opened. */
  readonly #held = new Map<string, LeasedConsumer | undefined>();
  #closed = false;

  constructor(options: ConsumersOptions) {
    this.#options = options;
  }

  /** @throws LeaseHeldError */
  async open(
    streamName: string,
    stream: JetStreamStream,
    name: string,
    takeOver: boolean,
  ): Promise<Consumer> {
    const local = `${streamName}/${name}`;
    // The name is taken before anything is awaited; who is being opened has no lease yet that could be taken.
    const holder = this.#held.get(local);
    if (this.#held.has(local) && !(takeOver && holder !== undefined)) {
      throw new LeaseHeldError(streamName, name);
    }
    this.#held.set(local, undefined);
    let opened: LeasedConsumer | undefined;
    const { link, ...parts } = this.#options;
    try {
      await holder?.lose();
      opened = await openLeasedConsumer({
        ...parts,
        tail: stream.tail,
        stream: streamName,
        name,
        key: `c.${stream.streamId}.${Buffer.from(name).toString("base64url")}`,
        owner: link.id,
        signal: link.signal,
        takeOver,
        mark: () => stream.mark(),
        released: () => {
          if (this.#held.get(local) === opened) this.#held.delete(local);
        },
      });
      await this.#refuseWhenLate(opened, streamName, stream);
      this.#held.set(local, opened);
      return opened;
    } finally {
      if (this.#held.get(local) === undefined) this.#held.delete(local);
    }
  }

  /** Who is being opened is not there to lose its lease when the stream is deleted or the gateway closes. */
  async #refuseWhenLate(
    opened: LeasedConsumer,
    streamName: string,
    { tail, streamId }: JetStreamStream,
  ): Promise<void> {
    if (!this.#closed && !tail.closed) return;
    await opened.close();
    if (this.#closed) throw new StreamsClosedError();
    // Its document may have come behind the removal of the others. One that is followed anew keeps them.
    if (!tail.isLost) await this.#options.documents.drop(`c.${streamId}`);
    throw new StreamNotFoundError(streamName);
  }

  /** All that were ever opened, by whatever gateway. Sorted by name. */
  async list(
    stream: JetStreamStream,
  ): Promise<ReadonlyArray<{ name: string; positions: ReadonlyMap<ShardId, Offset> }>> {
    const { documents } = this.#options;
    const all = await documents.keys(`c.${stream.streamId}`);
    // Below those of consumers stands what they keep for the next holder.
    const keys = all.filter((key) => !key.includes("."));
    const found = await Promise.all(
      keys.map((key) => documents.get<ConsumerRecord>(`c.${stream.streamId}.${key}`)),
    );
    return found
      .flatMap(({ value }) => (value === undefined ? [] : [value]))
      .map(({ name, positions }) => ({ name, positions: new Map(Object.entries(positions)) }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Those of a stream that is gone, or followed anew. */
  async lose({ name, streamId, tail }: JetStreamStream): Promise<void> {
    const all = [...this.#held].filter(([key]) => key.startsWith(`${name}/`));
    await Promise.all(all.map(([, consumer]) => consumer?.lose()));
    if (all.length === 0 || tail.isLost) return;
    const { documents, log } = this.#options;
    // One that was opened, or gave a sign of life, before this gateway heard of it may have come behind the removal of the others.
    documents.drop(`c.${streamId}`).catch((error: unknown) => {
      const text = "the checkpoints of a deleted stream are not removed yet";
      if (!this.#closed) log.warn({ stream: name, error: describeError(error) }, text);
    });
  }

  /** Hands the leases over, so that another gateway goes on at once. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#held.values()].map((consumer) => consumer?.close()));
  }
}
