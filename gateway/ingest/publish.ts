/** A publish on its way from the packet to what answers it. */
import type { Client } from "aedes";
import type { Destination } from "./destinations.ts";

/** What is without a packet id gets no PUBACK. */
export const NO_PACKET_ID = -1;

export interface Publish {
  readonly destination: Destination;
  readonly qos: 0 | 1 | 2;
  readonly dup: boolean;
  /** NO_PACKET_ID at QoS 0. */
  readonly packetId: number;
  /** Its payload is from `from` up to `end`; the memory is another's after the call that hands it on. */
  readonly bytes: Buffer;
  readonly from: number;
  readonly end: number;
}

/** Who tells the client what became of its publishes; never called within the call that hands one on. */
export interface Answers {
  /** It may be acknowledged. `payloadBytes` as it had: so much less waits. */
  acknowledge(packetId: number, payloadBytes: number): void;
  /** The client may not do that: its connection ends. */
  disconnect(error: Error): void;
}

/** What is known of one connection. */
export interface Session {
  readonly client: Client;
  readonly clientId: string;
  readonly device: string;
  /** The device was proven: it may act as itself alone, whatever is open to others. */
  readonly isProven: boolean;
  /** It has published, or subscribed. */
  hasSpoken: boolean;
  /** By the monotonic clock; undefined until it is. */
  letInMs: number | undefined;
  /** Set when a publish had to be left unanswered; nothing later may overtake it. */
  withheld: boolean;
  /**
   * Streams to which it has sent something new on this connection: what follows there is new as
   * well. Of each stream by itself, as one may have stored what another still lacked.
   */
  readonly fresh: Set<string>;
  /** Whether it numbers its packets anew, so that nothing on this connection is a resend; told by its first publish. */
  anew: boolean | undefined;
}

/** Nothing more of it will be answered, and all of that comes again. */
export function isOver({ withheld, client }: Session): boolean {
  return withheld || client.closed;
}

export function newSession(client: Client, device: string, isProven = false): Session {
  const { id: clientId } = client;
  return {
    client,
    clientId,
    device,
    isProven,
    hasSpoken: false,
    letInMs: undefined,
    withheld: false,
    fresh: new Set(),
    anew: undefined,
  };
}

/** A publish as far as its answer goes. */
export interface Addressed {
  readonly session: Session;
  readonly answers: Answers;
  readonly topic: string;
  readonly packetId: number;
  readonly payloadBytes: number;
}

export function addressed(session: Session, publish: Publish, answers: Answers): Addressed {
  const { destination, packetId, from, end } = publish;
  return { session, answers, topic: destination.topic, packetId, payloadBytes: end - from };
}

export function payloadOf({ bytes, from, end }: Publish): Buffer {
  return bytes.subarray(from, end);
}
