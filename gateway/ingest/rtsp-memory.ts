/**
 * What all publishers together may hold in memory. Each has bounds of its own, but there may be a thousand.
 *
 *   held by all   0 ────────── 1/3 ───────────────────────── 2/3 ──────────────── 3/3
 *                  all are read │ who has more than an equal  │ nobody new is let in │ reached only while units
 *                               │ part of a third is not read │                      │ are being written
 *
 * At a sixth units of plain cameras are cut short already: on disk they cost no memory.
 * Whoever is not read is slowed down by TCP, and loses nothing. Parts are of devices, as one device may have many
 * publishers. Where most of what is held waits for the disk, time helps. Where it is units whose ends do not come,
 * nothing would: then the largest publisher is disconnected once the others were held up for `patienceMs`. Of its
 * unit the pictures so far are kept, and an agent sends it again.
 */

import { machineMemoryBytes } from "../../runtime/machine-memory.ts";

const PATIENCE_MS = 10_000;
const LEAST_BYTES = 256 * 1_048_576;

/** How a publisher is dealt with. */
export interface HeldPublisher {
  pause(): void;
  resume(): void;
  end(): void;
}

/** What one device's publishers hold. */
interface Owner {
  readonly name: string;
  readonly accounts: Set<MemoryAccount>;
  heldBytes: number;
  paused: boolean;
}

export interface PublishersMemoryOptions {
  readonly maxBytes: number;
  /** 10 s unless told. */
  readonly patienceMs?: number | undefined;
  /** Hears of each device of which nothing is read for now. */
  onPause(owner: string): void;
  /** Hears of each publisher that is disconnected. */
  onEnd(owner: string, openBytes: number): void;
}

export class PublishersMemory {
  readonly #options: PublishersMemoryOptions;
  readonly #thirdBytes: number;
  readonly #owners = new Map<string, Owner>();
  readonly #paused = new Set<Owner>();
  #heldBytes = 0;
  #patience: NodeJS.Timeout | undefined;

  constructor(options: PublishersMemoryOptions) {
    this.#options = options;
    this.#thirdBytes = Math.floor(options.maxBytes / 3);
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** False while nobody new may come, or nobody of this owner. */
  mayOpen(ownerName: string): boolean {
    return this.#heldBytes < 2 * this.#thirdBytes && !this.#owners.get(ownerName)?.paused;
  }

  /** @param ownerName whose part it is of; mayOpen has said yes */
  open(ownerName: string, publisher: HeldPublisher): MemoryAccount {
    let owner = this.#owners.get(ownerName);
    if (owner === undefined) {
      owner = { name: ownerName, accounts: new Set(), heldBytes: 0, paused: false };
      this.#owners.set(ownerName, owner);
    }
    const { accounts } = owner;
    const changed = (bytes: number): void => {
      if (!account.isOpen) accounts.delete(account);
      this.#change(owner, bytes);
    };
    const isScarce = (): boolean => this.#hasMoreThanPartOf(this.#thirdBytes / 2, owner);
    const account: MemoryAccount = new MemoryAccount(publisher, changed, isScarce);
    accounts.add(account);
    return account;
  }

  close(): void {
    clearTimeout(this.#patience);
  }

  #change(owner: Owner, bytes: number): void {
    owner.heldBytes += bytes;
    this.#heldBytes += bytes;
    if (owner.accounts.size === 0) this.#leave(owner);
    else if (this.#isGreedy(owner) && !owner.paused) this.#pause(owner);
    // Whose part is larger than before can only be told when somebody has less.
    if (bytes <= 0) for (const other of this.#paused) if (!this.#isGreedy(other)) this.#resume(other);
  }

  #isGreedy(owner: Owner): boolean {
    return this.#hasMoreThanPartOf(this.#thirdBytes, owner);
  }

  #hasMoreThanPartOf(bytes: number, { heldBytes }: Owner): boolean {
    return this.#heldBytes >= bytes && heldBytes > bytes / this.#owners.size;
  }

  #leave(owner: Owner): void {
    this.#owners.delete(owner.name);
    if (this.#paused.delete(owner)) this.#calm();
  }

  #pause(owner: Owner): void {
    owner.paused = true;
    this.#paused.add(owner);
    this.#options.onPause(owner.name);
    for (const { publisher } of owner.accounts) publisher.pause();
    if (this.#patience === undefined) this.#wait();
  }

  #resume(owner: Owner): void {
    owner.paused = false;
    this.#paused.delete(owner);
    for (const { publisher } of owner.accounts) publisher.resume();
    this.#calm();
  }

  #calm(): void {
    if (this.#paused.size > 0) return;
    clearTimeout(this.#patience);
    this.#patience = undefined;
  }

  #wait(): void {
    this.#patience = setTimeout(() => this.#losePatience(), this.#options.patienceMs ?? PATIENCE_MS);
    this.#patience.unref();
  }

  #losePatience(): void {
    this.#wait();
    const accounts = [...this.#paused].flatMap((owner) => [...owner.accounts].map((one) => ({ owner, one })));
    const waitingBytes = accounts.reduce((sum, { one }) => sum + one.waitingBytes, 0);
    const openBytes = accounts.reduce((sum, { one }) => sum + one.openBytes, 0);
    if (waitingBytes > openBytes) return;
    const largest = accounts.reduce((a, b) => (openOf(b.owner) > openOf(a.owner) ? b : a));
    const [most] = [...largest.owner.accounts].sort((a, b) => b.openBytes - a.openBytes);
    this.#options.onEnd(largest.owner.name, most!.openBytes);
    most!.publisher.end();
  }
}

function openOf({ accounts }: Owner): number {
  let bytes = 0;
  for (const account of accounts) bytes += account.openBytes;
  return bytes;
}

/** What one publisher holds. */
export class MemoryAccount {
  readonly publisher: HeldPublisher;
  readonly #changed: (bytes: number) => void;
  readonly #isScarce: () => boolean;
  #openBytes = 0;
  #waitingBytes = 0;
  isOpen = true;

  constructor(publisher: HeldPublisher, changed: (bytes: number) => void, isScarce: () => boolean) {
    this.publisher = publisher;
    this.#changed = changed;
    this.#isScarce = isScarce;
  }

  /** Whoever can hold less should do so now, and need not be held up. */
  get isScarce(): boolean {
    return this.#isScarce();
  }

  get openBytes(): number {
    return this.#openBytes;
  }

  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** @param openBytes given back only by what the publisher does; @param waitingBytes by the disk */
  set(openBytes: number, waitingBytes: number): void {
    if (!this.isOpen) return;
    const change = openBytes + waitingBytes - this.#openBytes - this.#waitingBytes;
    this.#openBytes = openBytes;
    this.#waitingBytes = waitingBytes;
    if (change !== 0) this.#changed(change);
  }

  /** Holds nothing any more. Safe to call twice. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    const held = this.#openBytes + this.#waitingBytes;
    this.#openBytes = 0;
    this.#waitingBytes = 0;
    this.#changed(-held);
  }
}

/** A publisher is read while nothing holds it back. */
export class Brake {
  readonly #reasons = new Set<string>();
  readonly #session: { pauseReading(): void; resumeReading(): void };

  constructor(session: { pauseReading(): void; resumeReading(): void }) {
    this.#session = session;
  }

  hold(reason: string): void {
    this.#reasons.add(reason);
    this.#session.pauseReading();
  }

  release(reason: string): void {
    if (this.#reasons.delete(reason) && this.#reasons.size === 0) this.#session.resumeReading();
  }
}

/** An eighth of what this machine, or the container around this process, has; 256 MiB at least. */
export function publishersMemoryBytes(): number {
  return Math.max(LEAST_BYTES, Math.floor(machineMemoryBytes() / 8));
}
