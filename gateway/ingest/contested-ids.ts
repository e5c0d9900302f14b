/**
 * Client ids that connections take from one another. [MQTT-3.1.4-2]: of an id only the newest connection stays. An agent
 * whose link broke unseen comes back so, now and then; two devices with one identity, as after an SD card was copied,
 * end one another's connections for ever. Where gateways share the store, it stays on one of them only: what a sensor left
 * unread on its way to the gateway that it came from does not say that it was sent before, and is stored by the other one already.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import type { Session } from "./publish.ts";
import type { PublishDesk } from "./publish-desk.ts";

const WITHIN_MS = 120_000;
/** So many times within that. */
const TIMES = 3;
const MAX_REMEMBERED = 1_000;
/** Who lost its id so soon, and said nothing, had given up before it was let in; rivals wait for longer before they come back. */
const GIVEN_UP_MS = 500;

export interface ContestedIdsOptions {
  readonly streams: Pick<Streams, "claim" | "onClaim" | "leaveClient">;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly desk: PublishDesk;
}

export class ContestedIds {
  readonly #streams: ContestedIdsOptions["streams"];
  readonly #clock: Clock;
  readonly #desk: PublishDesk;
  readonly #takeovers;
  /** When an id was taken, the last few times; the id that was taken last stands last. */
  readonly #taken = new Map<string, readonly number[]>();
  /** Client ids that are claimed of the other gateways → for whom. */
  readonly #claims = new Map<string, { readonly session: Session; readonly release: () => void }>();

  constructor({ streams, clock, metrics, desk }: ContestedIdsOptions) {
    this.#streams = streams;
    this.#clock = clock;
    this.#desk = desk;
    this.#takeovers = metrics.counter(
      "headwater_ingest_takeovers_total",
      "MQTT connections ended as another came with the same client id, here or at another gateway of the same store",
    );
    streams.onClaim?.("mqtt", (clientId) => this.#claimed(clientId));
  }

  /** The session was let in, and nothing of it was taken yet. */
  claim(session: Session): void {
    const release = this.#streams.claim?.("mqtt", session.clientId);
    if (release !== undefined) this.#claims.set(session.clientId, { session, release });
  }

  /** It is over. */
  release(session: Session): void {
    const claim = this.#claims.get(session.clientId);
    if (claim?.session !== session) return;
    claim.release();
    this.#claims.delete(session.clientId);
  }

  /** Another gateway has let one of this id in. */
  #claimed(clientId: string): void {
    // Also of a connection that has ended already: what it brought may still wait for the cluster.
    this.#streams.leaveClient?.(clientId);
    const session = this.#claims.get(clientId)?.session;
    if (session === undefined) return;
    this.take(session);
    session.withheld = true;
    session.client.close();
  }

  /** The session has lost its id to another one, here or at another gateway, while it was connected. */
  take({ clientId, device, hasSpoken, letInMs }: Session): void {
    this.#takeovers.inc();
    const nowMs = this.#clock.monotonicMs();
    // A gateway that stood still for a time finds at once all the tries that its devices have given up since.
    if (!hasSpoken && nowMs - (letInMs ?? nowMs) < GIVEN_UP_MS) return;
    const before = this.#taken.get(clientId) ?? [];
    this.#taken.delete(clientId);
    const [oldest] = this.#taken.keys();
    if (oldest !== undefined && this.#taken.size >= MAX_REMEMBERED) this.#taken.delete(oldest);
    this.#taken.set(clientId, [...before, nowMs].slice(-TIMES));
    if (!this.has(clientId)) return;
    this.#desk.warn(
      { client: clientId, device },
      "connections end one another: two devices have one identity, or a link breaks again and again unseen",
    );
  }

  /** Whether it was taken again and again of late. */
  has(clientId: string): boolean {
    const taken = this.#taken.get(clientId) ?? [];
    return taken.length === TIMES && this.#clock.monotonicMs() - taken[0]! < WITHIN_MS;
  }
}
