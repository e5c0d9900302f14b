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
  #clients = new Map<string, string[]>();
  #waitingFrames = new Map<string, bigint>();
  #waitingPublishes = new Map<string, string[]>();

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
    if (this.#waitingFrames.get(key) === frame.sequence) this.#waitingFrames.delete(key);
    const known = this.#epochs.get(key);
    if (known !== undefined) {
      if (frame.sequence > known.last) known.last = frame.sequence;
      // Set anew, so that the Map's order is the order of last use.
      this.#epochs.delete(key);
      this.#epochs.set(key, known);
      return;
    }
    const { device, epoch, epochStart } = frame;
    this.#epochs.set(key, { device, epoch, epochStart, last: frame.sequence });
    if (this.#epochs.size > MAX_EPOCHS) this.#epochs.delete(this.#epochs.keys().next().value!);
  }

  #settlePublishes(clientId: string, identities: readonly string[], from: number, end: number): void {
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

  /** An epoch that is drained, or a client whose session has ended. */
  forgetProducer(producer: Producer): void {
    if (producer.kind === "frame") this.#epochs.delete(epochKey(producer.device, producer.epoch));
    else if (producer.kind === "publish") this.#clients.delete(producer.clientId);
  }

  /** A client's session has ended, before that is on disk: what it sends next is new. */
  endSession(clientId: string): void {
    this.#clients.delete(clientId);
    this.#waitingPublishes.delete(clientId);
  }

  /** What waited was not written. */
  dropWaiting(): void {
    this.#waitingFrames.clear();
    this.#waitingPublishes.clear();
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
    this.#clients.clear();
    for (const [device, epochHex, epochStart, last] of snapshot.epochs) {
      const epoch = BigInt(`0x${epochHex}`);
      this.#epochs.set(epochKey(device, epoch), { device, epoch, epochStart, last: BigInt(last) });
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
