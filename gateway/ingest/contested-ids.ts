/**
 * Client ids that connections take from one another. [MQTT-3.1.4-2]: of an id only the newest connection stays. An agent
 * whose link broke unseen comes back so, now and then; two devices with one identity, as after an SD card was copied,
 * end one another's connections for ever.
 */
import type { Clock } from "../../runtime/clock.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Session } from "./publish.ts";
import type { PublishDesk } from "./publish-desk.ts";

const WITHIN_MS = 120_000;
/** So many times within that. */
const TIMES = 3;
const MAX_REMEMBERED = 1_000;

export class ContestedIds {
  readonly #clock: Clock;
  readonly #desk: PublishDesk;
  readonly #takeovers;
  /** When an id was taken, the last few times; the id that was taken last stands last. */
  readonly #taken = new Map<string, readonly number[]>();

  constructor({ clock, metrics, desk }: { clock: Clock; metrics: Metrics; desk: PublishDesk }) {
    this.#clock = clock;
    this.#desk = desk;
    this.#takeovers = metrics.counter(
      "headwater_ingest_takeovers_total",
      "MQTT connections ended as another came with the same client id",
    );
  }

  /** The session has taken the id of another that is still connected. */
  take({ clientId, device }: Session): void {
    this.#takeovers.inc();
    const before = this.#taken.get(clientId) ?? [];
    this.#taken.delete(clientId);
    const [oldest] = this.#taken.keys();
    if (oldest !== undefined && this.#taken.size >= MAX_REMEMBERED) this.#taken.delete(oldest);
    this.#taken.set(clientId, [...before, this.#clock.monotonicMs()].slice(-TIMES));
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
