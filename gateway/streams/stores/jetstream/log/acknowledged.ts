/**
 * Which message of a stream stands where, as the cluster said when it acknowledged it: here, or at another
 * gateway by its word. Sound nodes never show another message there. nats-server 2.9 does, for good, once a
 * stream's leader hung or was cut off and came back (design note 16): that is counted and said loudly.
 */
import type { Clock } from "../../../../../runtime/clock.ts";
import type { Log } from "../../../../../runtime/log.ts";
import type { Link } from "../cluster/link.ts";
import { ID_HEADER, type StoredMessage } from "../cluster/stored-message.ts";

const REMEMBERED = 4_096;
/** A copy that differs does so at every message from then on. */
const TOLD_EVERY_MS = 30_000;

/** Whether this nats-server is of those whose copies may differ; what cannot be told from a version is not. */
export function copiesMayDiffer(version: string): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)\./.exec(version) ?? [];
  return major !== undefined && (Number(major) < 2 || (Number(major) === 2 && Number(minor) < 10));
}

export interface AcknowledgedOptions {
  readonly link: Pick<Link, "get" | "leaderGet" | "server" | "countContradiction">;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the Headwater stream, and of the JetStream stream. */
  readonly name: string;
  readonly stream: string;
}

export class Acknowledged {
  readonly #options: AcknowledgedOptions;
  /** Sequence → message id; the newest, in the order in which they were noted. */
  readonly #ids = new Map<number, string>();
  #newest = 0;
  /** The newest one when the nodes were asked last: by the next time it has reached them all. */
  #next = 0;
  #asked = 0;
  #toldMs: number | undefined;

  constructor(options: AcknowledgedOptions) {
    this.#options = options;
  }

  note(sequence: number, id: string): void {
    if (!Number.isSafeInteger(sequence) || id === "") return;
    const known = this.#ids.get(sequence);
    if (known === id) return;
    if (known !== undefined) {
      this.#contradicted({ sequence, acknowledged: known, alsoAcknowledged: id });
      return;
    }
    this.#ids.set(sequence, id);
    this.#newest = Math.max(this.#newest, sequence);
    if (this.#ids.size > REMEMBERED) this.#ids.delete(this.#ids.keys().next().value!);
  }

  /** What is not there may have been taken by retention, or not have come there yet: that tells nothing. */
  compare(message: StoredMessage | undefined, node = this.#options.link.server): void {
    if (message === undefined) return;
    const { sequence, header } = message;
    const acknowledged = this.#ids.get(sequence);
    if (acknowledged === undefined || acknowledged === header(ID_HEADER)) return;
    this.#contradicted({ sequence, acknowledged, held: header(ID_HEADER), node });
  }

  /** A node gave it, and the stream's leader does not have it there. @returns whether it was acknowledged */
  isContradicted({ sequence, header }: StoredMessage): boolean {
    const id = header(ID_HEADER);
    this.#contradicted({ sequence, held: id, missingAt: "the stream's leader" });
    return this.#ids.get(sequence) === id;
  }

  /** Called once a second: asks the node that is read from, and the stream's leader. */
  async look(): Promise<void> {
    const { link, stream } = this.#options;
    const sequence = this.#next;
    this.#next = this.#newest;
    if (sequence === this.#asked) return;
    this.#asked = sequence;
    this.compare(await link.get(stream, sequence));
    this.compare(await link.leaderGet(stream, { seq: sequence }), "the stream's leader");
  }

  #contradicted(facts: Readonly<Record<string, unknown>>): void {
    const { link, clock, log, name } = this.#options;
    link.countContradiction(name);
    const nowMs = clock.monotonicMs();
    if (this.#toldMs !== undefined && nowMs - this.#toldMs < TOLD_EVERY_MS) return;
    this.#toldMs = nowMs;
    log.error(
      { stream: name, ...facts },
      "the NATS nodes hold different messages at one place, so acknowledged records may be missing; " +
        "docs/guide/jetstream.md says how to mend it",
    );
  }
}
