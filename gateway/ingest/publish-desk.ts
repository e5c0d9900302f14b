/**
 * What becomes of a publish when it is not simply stored, and the count of all answers:
 *
 *   invalid            → kept aside, then PUBACK: refused, it would come again for ever
 *   temporary trouble  → no PUBACK; the agent is told by its control topic, and nothing later is
 *                        taken on that connection, which ends soon after
 *   not allowed        → disconnected and counted
 */
import { type ControlMessage, parseTopic, topicOf } from "../../protocol/topics.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { Log, LogFields } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SparingLog } from "../../runtime/sparing-log.ts";
import { StreamNotFoundError, type Streams } from "../streams/streams.ts";
import type { Addressed, Answers, Session } from "./publish.ts";
import type { Quarantine } from "./quarantine.ts";

const RETRY_AFTER_MS = 1_000;
/** Time for the control message to leave before its connection ends. */
const BUSY_GRACE_MS = 500;

export interface PublishDeskOptions {
  readonly streams: Streams;
  readonly quarantine: Quarantine;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/** The client may not do this; its connection ends. */
export class NotAllowedError extends HeadwaterError {
  constructor(what: string) {
    super("NOT_ALLOWED", { message: what });
  }
}

export type Answer = "stored" | "duplicate" | "quarantined" | "withheld";
const ANSWERS: readonly Answer[] = ["stored", "duplicate", "quarantined", "withheld"];

export class PublishDesk {
  readonly #options: PublishDeskOptions;
  readonly #counters: ReadonlyMap<Answer, { inc(count: number): void }>;
  readonly #refused;
  readonly #log: SparingLog;

  constructor(options: PublishDeskOptions) {
    this.#options = options;
    this.#log = new SparingLog(options.log);
    const { metrics } = options;
    const publishes = metrics.counter(
      "headwater_ingest_publishes_total",
      "MQTT publishes by how they were answered",
      ["answer"],
    );
    this.#counters = new Map(ANSWERS.map((answer) => [answer, publishes.labels({ answer })]));
    this.#refused = metrics.counter(
      "headwater_ingest_refused_total",
      "MQTT clients refused or disconnected",
      ["reason"],
    );
  }

  count(answer: Answer, publishes: number): void {
    if (publishes > 0) this.#counters.get(answer)?.inc(publishes);
  }

  /** A client was refused, or its connection ended. */
  refuse(reason: string): void {
    this.#refused.inc({ reason });
  }

  /** Says what a client did, or what became of it; not each time. */
  warn(fields: LogFields, message: string): void {
    this.#log.warn(this.#options.clock.nowUs(), fields, message);
  }

  /**
   * Why nothing can be stored in a stream: deleted, or never made. Withheld, a publish to it would come
   * again for ever. Asked before anything is awaited, as long as the payload is at hand.
   */
  missing(stream: string): string | undefined {
    try {
      this.#options.streams.settings(stream);
    } catch (error) {
      // Whatever else is wrong, the append says it.
      if (error instanceof StreamNotFoundError) return `there is no stream ${stream}`;
    }
    return undefined;
  }

  /** It may be acknowledged, unless something before it may not. */
  answer(answer: Answer, { session, answers, packetId, payloadBytes }: Addressed): void {
    if (session.withheld) return;
    this.count(answer, 1);
    answers.acknowledge(packetId, payloadBytes);
  }

  /** Resolves when it is on disk among the quarantined. @param payload copied in the call */
  async keep(session: Session, topic: string, payload: Uint8Array, reason: string): Promise<Answer> {
    const { quarantine, clock } = this.#options;
    await quarantine.keep({ timeUs: clock.nowUs(), client: session.clientId, topic, reason, payload });
    return "quarantined";
  }

  /** Keeps it aside, then acknowledges it. @param payload copied in the call */
  quarantine(publish: Addressed, payload: Uint8Array, reason: string): void {
    const { session, topic } = publish;
    this.keep(session, topic, payload, reason).then(
      (answer) => this.answer(answer, publish),
      (error: unknown) => this.withhold(session, topic, error),
    );
  }

  disconnect({ client, clientId }: Session, answers: Answers, error: NotAllowedError): void {
    this.refuse("not allowed");
    this.warn({ client: clientId, error: describeError(error) }, "device disconnected");
    // The library, and the lane, are in the midst of its packets.
    process.nextTick(() => {
      if (!client.closed) answers.disconnect(error);
    });
  }

  /** No PUBACK, so the client keeps the publish and sends it again on its next connection. */
  withhold(session: Session, topic: string, error: unknown): void {
    if (session.withheld) return;
    session.withheld = true;
    this.count("withheld", 1);
    const { client, clientId } = session;
    const reason = describeError(error);
    this.warn({ client: clientId, reason }, "publish not stored; PUBACK withheld");
    const device = parseTopic(topic)?.device;
    if (device !== undefined) {
      const message: ControlMessage = {
        type: "busy",
        reason: "the gateway cannot store for now",
        retryAfterMs: RETRY_AFTER_MS,
      };
      const payload = JSON.stringify(message);
      const packet = { cmd: "publish", topic: topicOf(device, "control"), payload } as const;
      client.publish({ ...packet, qos: 0, retain: false, dup: false }, () => {});
    }
    setTimeout(() => client.close(), BUSY_GRACE_MS).unref();
  }
}
