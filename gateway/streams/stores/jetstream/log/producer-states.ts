/**
 * What a stream remembers of its producers. Each epoch and each plain client has a subject of its
 * own, and each message says in its headers what is remembered after it; so the last message of a
 * subject is the whole state, and a publish that expects it cannot double what another gateway stored.
 */
import { md5 } from "../../../shard-map.ts";
import { ID_HEADER, type StoredMessage } from "../cluster/stored-message.ts";
import { arrivalOf } from "./entry.ts";

export const FRAME_HEADER = "Hw-Frame";
export const RECENT_HEADER = "Hw-Recent";
/** As the store `local` remembers. */
export const REMEMBERED_PUBLISHES = 64;
/** As the store `local` bounds them: ids of clients are often random. The one silent for longest is forgotten first. */
const MAX_CLIENTS = 4_096;
const MAX_EPOCHS = 100_000;
/** Of one device, its first ones go first: one that begins an epoch with each frame harms nobody but itself. */
const MAX_EPOCHS_OF_DEVICE = 1_000;
/** Packet id and eight bytes of the MD5: enough to tell 64 publishes of one client apart. */
const IDENTITY_BYTES = 10;

export interface ProducerState {
  /** Sequence of the last message on its subject; 0 for none. */
  readonly sequence: number;
  /** The last one of them that counts. */
  readonly counted: { readonly sequence: number; readonly id: string };
  /** When that was stored, by its writer's clock. */
  readonly arrivalMs: number;
  /** Of the frames of an epoch; 0n when forgotten. */
  readonly lastFrame: bigint;
  /** Identities of a plain client's last publishes, oldest first. */
  readonly recent: readonly string[];
}

export const UNKNOWN: ProducerState = {
  sequence: 0,
  counted: { sequence: 0, id: "" },
  arrivalMs: 0,
  lastFrame: 0n,
  recent: [],
};

/** Behind the stream's own subject. */
export function epochToken(device: string, epoch: bigint): string {
  return `f.${epoch.toString(16)}-${Buffer.from(device).toString("base64url")}`;
}

export function clientToken(clientId: string): string {
  return `p.${md5(clientId)}`;
}

/**
 * Of records without a producer, which each gateway writes under a subject of its own. A node that hung and
 * wakes may send on what it had from the gateway once more, and nats-server 2.9 stores it; behind the
 * gateway's own later messages it is not where it expects to be, and does not count.
 */
export function gatewayToken(gatewayId: string): string {
  return `g.${gatewayId}`;
}

/** @param identity as `publishIdentity` gives it */
export function shortIdentity(identity: string): string {
  return identity.slice(0, IDENTITY_BYTES);
}

/** What is remembered, whichever message says it. */
export type Remembered = Pick<ProducerState, "lastFrame" | "recent">;

export function stateHeaders(token: string, state: Remembered): Record<string, string> {
  if (token.startsWith("f.")) return { [FRAME_HEADER]: state.lastFrame.toString() };
  return { [RECENT_HEADER]: Buffer.from(state.recent.join(""), "latin1").toString("base64") };
}

export function stateOf(message: Pick<StoredMessage, "sequence" | "header" | "payload">): ProducerState {
  const frame = message.header(FRAME_HEADER);
  const bytes = Buffer.from(message.header(RECENT_HEADER), "base64").toString("latin1");
  const recent: string[] = [];
  for (let at = 0; at + IDENTITY_BYTES <= bytes.length; at += IDENTITY_BYTES) {
    recent.push(bytes.slice(at, at + IDENTITY_BYTES));
  }
  const lastFrame = /^\d{1,20}$/.test(frame) ? BigInt(frame) : 0n;
  const { sequence } = message;
  const counted = { sequence, id: message.header(ID_HEADER) };
  return { sequence, counted, arrivalMs: arrivalOf(message.payload), lastFrame, recent };
}

export interface ProducerLimits {
  readonly clients: number;
  readonly epochs: number;
  readonly epochsOfDevice: number;
}

const LIMITS: ProducerLimits = {
  clients: MAX_CLIENTS,
  epochs: MAX_EPOCHS,
  epochsOfDevice: MAX_EPOCHS_OF_DEVICE,
};

/**
 * Bounded in what it remembers. Of a producer that it forgets it knows the place of the last message still, as
 * the next one has to expect it, until retention takes that.
 */
export class ProducerStates {
  readonly #limits: ProducerLimits;
  readonly #states = new Map<string, ProducerState>();
  /** Tokens of those that are remembered, the one silent for longest first. */
  readonly #clients = new Set<string>();
  readonly #epochs = new Set<string>();
  readonly #epochsOf = new Map<string, Set<string>>();
  #newest = "";
  #isRestored = false;

  constructor(limits = LIMITS) {
    this.#limits = limits;
  }

  /** Of those that remember anything. */
  get size(): number {
    return this.#clients.size + this.#epochs.size;
  }

  get(token: string): ProducerState {
    return this.#states.get(token) ?? UNKNOWN;
  }

  /** What is older than what is known is left out. */
  set(token: string, state: ProducerState): void {
    if (state.sequence < this.get(token).sequence) return;
    this.#states.set(token, state);
    if (this.#isRestored) this.#note(token, state);
  }

  /** What was there at the start is known, in whatever order it came: from now on the limits hold. */
  restored(): void {
    this.#isRestored = true;
    const all = [...this.#states].sort(([, a], [, b]) => a.counted.sequence - b.counted.sequence);
    for (const [token, state] of all) this.#note(token, state);
  }

  #note(token: string, state: ProducerState): void {
    const isClient = token.startsWith("p.");
    if (!isClient && !token.startsWith("f.")) return;
    if (!remembers(state)) {
      this.#leave(token);
      return;
    }
    // It stands last already.
    if (token === this.#newest) return;
    this.#newest = token;
    const order = isClient ? this.#clients : this.#epochs;
    order.delete(token);
    order.add(token);
    if (isClient) {
      if (order.size > this.#limits.clients) this.#forgetOldest(order);
      return;
    }
    const device = deviceOf(token);
    const others = this.#epochsOf.get(device) ?? new Set();
    this.#epochsOf.set(device, others.add(token));
    if (others.size > this.#limits.epochsOfDevice) this.#forgetOldest(others);
    if (order.size > this.#limits.epochs) this.#forgetOldest(order);
  }

  #forgetOldest(order: Set<string>): void {
    const token = order.values().next().value!;
    this.#states.set(token, { ...this.get(token), lastFrame: 0n, recent: [] });
    this.#leave(token);
  }

  #leave(token: string): void {
    if (token === this.#newest) this.#newest = "";
    if (this.#clients.delete(token) || !this.#epochs.delete(token)) return;
    const others = this.#epochsOf.get(deviceOf(token));
    others?.delete(token);
    if (others?.size === 0) this.#epochsOf.delete(deviceOf(token));
  }

  knows(token: string): boolean {
    return remembers(this.get(token));
  }

  /** The subject has no message any more: retention took the last. */
  forget(token: string): void {
    this.#states.delete(token);
    this.#leave(token);
  }

  /** When the last message of each came, by its writer's clock. */
  arrivals(): number[] {
    return [...this.#states.values()].map(({ arrivalMs }) => arrivalMs);
  }

  /** Those that retention would take soon, as their last message was stored before. */
  rememberedBefore(arrivalMs: number): string[] {
    return [...this.#states]
      .filter(([, state]) => remembers(state) && state.arrivalMs < arrivalMs)
      .map(([token]) => token);
  }

  /** Lets go of those that remember nothing and of which nothing is kept. */
  prune(firstSequence: number): void {
    for (const [token, state] of this.#states) {
      if (state.sequence < firstSequence && !remembers(state)) this.#states.delete(token);
    }
  }
}

/** As its epoch's token writes it. */
function deviceOf(token: string): string {
  return token.slice(token.indexOf("-") + 1);
}

function remembers(state: ProducerState): boolean {
  return state.lastFrame > 0n || state.recent.length > 0;
}
