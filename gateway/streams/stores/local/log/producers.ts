/**
 * What a stream remembers of its producers, so that what comes again is not stored again: the last
 * frame of each epoch, and the last 64 publishes of each plain client.
 *
 * What is on disk and what only waits for it are kept apart. A repetition of something that waits
 * must not be acknowledged before it, and a failed write forgets only what waited.
 */
import type { Producer } from "../../entry-producer.ts";
import { packetPrefix } from "../../publish-identity.ts";

/** Publishes remembered per plain client. */
export const REMEMBERED_PUBLISHES = 64;
/** Clients remembered per stream; the one silent for longest goes first, as ids are often random. */
export const MAX_CLIENTS = 4_096;
/**
 * Epochs remembered per stream; the one silent for longest goes first. Agents declare theirs drained,
 * so only a broken one comes near.
 */
export const MAX_EPOCHS = 100_000;
/** Of one device, its first ones go first: one that begins an epoch with each frame harms nobody but itself. */
export const MAX_EPOCHS_OF_DEVICE = 1_000;

interface EpochState {
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
  #epochs = new Map<string, EpochState>();
  /** The keys of each device's epochs, in the order in which they began. */
  #epochsOf = new Map<string, Set<string>>();
  #clients = new Map<string, string[]>();
  /**
   * Also what is on disk by now, for as long as its epoch is known: a Map that empties and fills with each
   * frame gets a new table from V8 each time, which only a collection of the whole heap finds to be free.
   */
  #waitingFrames = new Map<string, bigint>();
  /** The one that stands last; it need not be moved. */
  #newestEpoch: EpochState | undefined;
  #waitingPublishes = new Map<string, string[]>();
  /** Of clients whose session has ended, how many publishes of it wait for the disk still: they come before all others. */
  #endedPublishes = new Map<string, number>();

  get size(): number {
    return this.#epochs.size + this.#clients.size;
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
    if (this.#clients.get(clientId)?.includes(identity)) return "duplicate";
    return this.#waitingPublishes.get(clientId)?.includes(identity) ? "duplicate-of-waiting" : "new";
  }

  knowsClient(clientId: string): boolean {
    return this.#clients.has(clientId) || this.#waitingPublishes.has(clientId);
  }

  remembersPacket(clientId: string, packetId: number): boolean {
    const prefix = packetPrefix(packetId);
    const of = (identities: readonly string[] | undefined): boolean =>
      identities?.some((identity) => identity.startsWith(prefix)) ?? false;
    return of(this.#clients.get(clientId)) || of(this.#waitingPublishes.get(clientId));
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
    if (producer.kind === "publish") this.#expectPublish(producer.clientId, producer.identity);
    else
      for (const [i, clientId] of producer.clientIds.entries())
        this.#expectPublish(clientId, producer.identities[i]!);
  }

  #expectPublish(clientId: string, identity: string): void {
    const waiting = this.#waitingPublishes.get(clientId);
    if (waiting === undefined) this.#waitingPublishes.set(clientId, [identity]);
    else waiting.push(identity);
  }

  /** It is on disk. */
  settle(producer: Producer): void {
    if (producer.kind === "frame") this.#settleFrame(producer);
    else if (producer.kind === "publish") this.#settlePublishes(producer.clientId, [producer.identity], 0, 1);
    else {
      const { clientIds, identities } = producer;
      for (let from = 0, end = 0; from < clientIds.length; from = end) {
        // Those of one client often come together.
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
      if (known === this.#newestEpoch) return;
      // Set anew, so that the Map's order is the order of last use.
      this.#epochs.delete(key);
      this.#epochs.set(key, known);
      this.#newestEpoch = known;
      return;
    }
    const { device, epoch, epochStart } = frame;
    this.#newestEpoch = { device, epoch, epochStart, last: frame.sequence };
    this.#begin(key, this.#newestEpoch);
    if (this.#epochs.size > MAX_EPOCHS) this.#forgetEpoch(this.#epochs.keys().next().value!);
  }

  #begin(key: string, state: EpochState): void {
    const { device } = state;
    this.#epochs.set(key, state);
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
      const others = this.#epochsOf.get(known.device);
      others?.delete(key);
      if (others?.size === 0) this.#epochsOf.delete(known.device);
    }
    if ((this.#waitingFrames.get(key) ?? 0n) <= last) this.#waitingFrames.delete(key);
  }

  #settlePublishes(clientId: string, identities: readonly string[], first: number, end: number): void {
    const from = this.#endedPublishes.size === 0 ? first : first + this.#passEnded(clientId, end - first);
    if (from === end) return;
    const waiting = this.#waitingPublishes.get(clientId);
    const seen = this.#clients.get(clientId) ?? [];
    for (let i = from; i < end; i++) {
      const at = waiting?.indexOf(identities[i]!) ?? -1;
      if (at >= 0) waiting?.splice(at, 1);
      seen.push(identities[i]!);
    }
    if (waiting?.length === 0) this.#waitingPublishes.delete(clientId);
    if (seen.length > REMEMBERED_PUBLISHES) seen.splice(0, seen.length - REMEMBERED_PUBLISHES);
    // Set anew, so that the Map's order is the order of last use.
    this.#clients.delete(clientId);
    this.#clients.set(clientId, seen);
    if (this.#clients.size > MAX_CLIENTS) this.#clients.delete(this.#clients.keys().next().value!);
  }

  /** How many of the client's next publishes are of a session that has ended. */
  #passEnded(clientId: string, publishes: number): number {
    const ended = this.#endedPublishes.get(clientId) ?? 0;
    if (ended <= publishes) this.#endedPublishes.delete(clientId);
    else this.#endedPublishes.set(clientId, ended - publishes);
    return Math.min(ended, publishes);
  }

  /** An epoch that is drained, or a client whose session has ended. */
  forgetProducer(producer: Producer): void {
    if (producer.kind === "frame") this.#forgetEpoch(epochKey(producer.device, producer.epoch));
    else if (producer.kind === "publish") this.#clients.delete(producer.clientId);
  }

  /** A client's session has ended, before that is on disk: what it sends next is new. */
  endSession(clientId: string): void {
    this.#clients.delete(clientId);
    const waiting = this.#waitingPublishes.get(clientId);
    if (waiting === undefined) return;
    this.#waitingPublishes.delete(clientId);
    const ended = this.#endedPublishes.get(clientId) ?? 0;
    this.#endedPublishes.set(clientId, ended + waiting.length);
  }

  /** What waited was not written. */
  dropWaiting(): void {
    this.#waitingFrames.clear();
    this.#waitingPublishes.clear();
    this.#endedPublishes.clear();
  }

  /** What is on disk, without what waits: it is written ahead of that. */
  snapshot(): ProducerSnapshot {
    return {
      epochs: [...this.#epochs.values()].map((known) => [
        known.device,
        known.epoch.toString(16),
        known.epochStart,
        known.last.toString(),
      ]),
      clients: [...this.#clients].map(([clientId, seen]) => [
        clientId,
        seen.map((identity) => Buffer.from(identity, "latin1").toString("base64")),
      ]),
    };
  }

  restore(snapshot: ProducerSnapshot): void {
    this.#epochs.clear();
    this.#epochsOf.clear();
    this.#clients.clear();
    for (const [device, epochHex, epochStart, last] of snapshot.epochs) {
      const epoch = BigInt(`0x${epochHex}`);
      this.#begin(epochKey(device, epoch), { device, epoch, epochStart, last: BigInt(last) });
    }
    for (const [clientId, seen] of snapshot.clients) {
      this.#clients.set(
        clientId,
        seen.map((identity) => Buffer.from(identity, "base64").toString("latin1")),
      );
    }
  }
}

function epochKey(device: string, epoch: bigint): string {
  return `${epoch.toString(16)}/${device}`;
}
