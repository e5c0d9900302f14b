/**
 * What a stream remembers of its producers, so that what comes again is not stored again: the last
 * frame of each epoch, and the last 64 publishes of each plain client.
 *
 * What is on disk and what only waits for it are kept apart. A repetition of something that waits
 * must not be acknowledged before it, and a failed write forgets only what waited.
 */
import type { Producer } from "../../entry-producer.ts";
import { ClientPublishes } from "./client-publishes.ts";
import { LastUsed, type Linked } from "./last-used.ts";

/** Clients remembered per stream; the one silent for longest goes first, as ids are often random. */
export const MAX_CLIENTS = 4_096;
/**
 * Epochs remembered per stream; the one silent for longest goes first. Agents declare theirs drained,
 * so only a broken one comes near.
 */
export const MAX_EPOCHS = 100_000;
/** Of one device, its first ones go first: one that begins an epoch with each frame harms nobody but itself. */
export const MAX_EPOCHS_OF_DEVICE = 1_000;

interface EpochState extends Linked<EpochState> {
  readonly key: string;
  readonly device: string;
  readonly epoch: bigint;
  readonly epochStart: number;
  last: bigint;
}

/** What the state entry at the head of a segment says of producers. */
export interface ProducerSnapshot {
  /** Device, epoch, start, last sequence. */
  readonly epochs: ReadonlyArray<readonly [string, string, number, string]>;
  /** Client and its publishes' identities in base64, oldest first. */
  readonly clients: ReadonlyArray<readonly [string, readonly string[]]>;
}

export type Verdict = "new" | "duplicate" | "duplicate-of-waiting";

export class Producers {
  readonly #epochs = new Map<string, EpochState>();
  readonly #usedEpochs = new LastUsed<EpochState>();
  /** The keys of each device's epochs, in the order in which they began. */
  readonly #epochsOf = new Map<string, Set<string>>();
  /**
   * Also what is on disk by now, for as long as its epoch is known: a Map that empties and fills with each
   * frame gets a new table from V8 each time, which only a collection of the whole heap finds to be free.
   */
  readonly #waitingFrames = new Map<string, bigint>();
  /** Also those of which nothing is on disk yet. */
  readonly #clients = new Map<string, ClientPublishes>();
  /** Those of which something is on disk. */
  readonly #usedClients = new LastUsed<ClientPublishes>();

  get size(): number {
    return this.#epochs.size + this.#usedClients.size;
  }

  /** Whether a frame is new; a jump in its sequence is, as others of its epoch may go to other streams. */
  judgeFrame(device: string, epoch: bigint, sequence: bigint): Verdict {
    const key = epochKey(device, epoch);
    const last = this.#epochs.get(key)?.last ?? 0n;
    if (sequence <= last) return "duplicate";
    const waiting = this.#waitingFrames.get(key) ?? last;
    if (sequence <= waiting) return "duplicate-of-waiting";
    return "new";
  }

  judgePublish(clientId: string, identity: string): Verdict {
    const found = this.#clients.get(clientId)?.find(identity);
    if (found === undefined) return "new";
    return found === "stored" ? "duplicate" : "duplicate-of-waiting";
  }

  knowsClient(clientId: string): boolean {
    return this.#clients.get(clientId)?.isKnown ?? false;
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    return this.#clients.get(clientId)?.remembersPacket(packetId) ?? false;
  }

  knowsEpoch(device: string, epoch: bigint): boolean {
    const key = epochKey(device, epoch);
    return this.#epochs.has(key) || this.#waitingFrames.has(key);
  }

  /** It was put into a group that waits for the disk. */
  expect(producer: Producer): void {
    if (producer.kind === "frame") {
      this.#waitingFrames.set(epochKey(producer.device, producer.epoch), producer.sequence);
      return;
    }
    if (producer.kind === "publish") {
      this.#client(producer.clientId).expect(producer.identity);
      return;
    }
    const { clientIds, identities } = producer;
    for (let from = 0, end = 0; from < clientIds.length; from = end) {
      // Those of one client often come together.
      const client = this.#client(clientIds[from]!);
      for (; end < clientIds.length && clientIds[end] === clientIds[from]; end++)
        client.expect(identities[end]!);
    }
  }

  /** It is on disk. */
  settle(producer: Producer): void {
    if (producer.kind === "frame") this.#settleFrame(producer);
    else if (producer.kind === "publish") this.#settlePublishes(producer.clientId, [producer.identity], 0, 1);
    else {
      const { clientIds, identities } = producer;
      for (let from = 0, end = 0; from < clientIds.length; from = end) {
        while (end < clientIds.length && clientIds[end] === clientIds[from]) end++;
        this.#settlePublishes(clientIds[from]!, identities, from, end);
      }
    }
  }

  #settleFrame(frame: Producer & { kind: "frame" }): void {
    const key = epochKey(frame.device, frame.epoch);
    const known = this.#epochs.get(key);
    if (known !== undefined) {
      if (frame.sequence > known.last) known.last = frame.sequence;
      this.#usedEpochs.touch(known);
      return;
    }
    this.#begin(key, frame, frame.sequence);
    if (this.#epochs.size > MAX_EPOCHS) this.#forgetEpoch(this.#usedEpochs.oldest!.key);
  }

  #begin(
    key: string,
    { device, epoch, epochStart }: Pick<EpochState, "device" | "epoch" | "epochStart">,
    last: bigint,
  ): void {
    const state = { key, device, epoch, epochStart, last, older: undefined, newer: undefined };
    this.#epochs.set(key, state);
    this.#usedEpochs.touch(state);
    const others = this.#epochsOf.get(device);
    if (others === undefined) {
      this.#epochsOf.set(device, new Set([key]));
      return;
    }
    others.add(key);
    if (others.size > MAX_EPOCHS_OF_DEVICE) this.#forgetEpoch(others.keys().next().value!);
  }

  /** What waits for the disk stays known. */
  #forgetEpoch(key: string): void {
    const known = this.#epochs.get(key);
    const last = known?.last ?? 0n;
    this.#epochs.delete(key);
    if (known !== undefined) {
      this.#usedEpochs.remove(known);
      const others = this.#epochsOf.get(known.device);
      others?.delete(key);
      if (others?.size === 0) this.#epochsOf.delete(known.device);
    }
    if ((this.#waitingFrames.get(key) ?? 0n) <= last) this.#waitingFrames.delete(key);
  }

  #settlePublishes(clientId: string, identities: readonly string[], from: number, end: number): void {
    const client = this.#client(clientId);
    client.settle(identities, from, end);
    if (client.hasStored) this.#usedClients.touch(client);
    if (this.#usedClients.size > MAX_CLIENTS) this.#forgetStored(this.#usedClients.oldest!);
    else this.#letGo(client);
  }

  #client(clientId: string): ClientPublishes {
    let client = this.#clients.get(clientId);
    if (client === undefined) {
      client = new ClientPublishes(clientId);
      this.#clients.set(clientId, client);
    }
    return client;
  }

  /** What waits for the disk stays known. */
  #forgetStored(client: ClientPublishes): void {
    client.forgetStored();
    this.#usedClients.remove(client);
    this.#letGo(client);
  }

  #letGo(client: ClientPublishes): void {
    if (client.isNothing) this.#clients.delete(client.clientId);
  }

  /** An epoch that is drained, or a client whose session has ended. */
  forgetProducer(producer: Producer): void {
    if (producer.kind === "frame") this.#forgetEpoch(epochKey(producer.device, producer.epoch));
    else if (producer.kind === "publish") {
      const client = this.#clients.get(producer.clientId);
      if (client !== undefined) this.#forgetStored(client);
    }
  }

  /** A client's session has ended, before that is on disk: what it sends next is new. */
  endSession(clientId: string): void {
    const client = this.#clients.get(clientId);
    if (client === undefined) return;
    client.endSession();
    this.#usedClients.remove(client);
    this.#letGo(client);
  }

  /** What waited was not written. */
  dropWaiting(): void {
    this.#waitingFrames.clear();
    for (const client of this.#clients.values()) {
      client.dropWaiting();
      this.#letGo(client);
    }
  }

  /** What is on disk, without what waits: it is written ahead of that. */
  snapshot(): ProducerSnapshot {
    return {
      epochs: Array.from(this.#usedEpochs, (known) => [
        known.device,
        known.epoch.toString(16),
        known.epochStart,
        known.last.toString(),
      ]),
      clients: Array.from(this.#usedClients, (client) => [client.clientId, client.storedIdentities()]),
    };
  }

  /** Of a log that is being opened: what was known before is that of entries which the snapshot stands for, too. */
  restore(snapshot: ProducerSnapshot): void {
    for (const key of [...this.#epochs.keys()]) this.#forgetEpoch(key);
    for (const client of [...this.#usedClients]) this.#forgetStored(client);
    for (const [device, epochHex, epochStart, last] of snapshot.epochs) {
      const epoch = BigInt(`0x${epochHex}`);
      this.#begin(epochKey(device, epoch), { device, epoch, epochStart }, BigInt(last));
    }
    for (const [clientId, seen] of snapshot.clients) {
      const identities = seen.map((identity) => Buffer.from(identity, "base64").toString("latin1"));
      this.#settlePublishes(clientId, identities, 0, identities.length);
    }
  }
}

function epochKey(device: string, epoch: bigint): string {
  return `${epoch.toString(16)}/${device}`;
}
