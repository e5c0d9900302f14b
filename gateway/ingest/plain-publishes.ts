/**
 * Plain sensors that publish straight to the gateway, without frames: each publish becomes one record
 * of the stream that a topic rule names, under its topic as partition key. Such a publish carries no
 * sequence, so packet id and payload tell whether it came before.
 *
 *   publishes of all connections ─gathered→ one append per stream and turn of the event loop
 */
import { numbersAnew } from "../../protocol/packet-numbering.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { AppendOutcome, Streams } from "../streams/streams.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import { PlainBatch } from "./plain-batch.ts";
import { type Answers, addressed, type Publish, payloadOf, type Session } from "./publish.ts";
import type { PublishDesk } from "./publish-desk.ts";

/** A plain sensor's publish is one record. */
export const MAX_PLAIN_BYTES = 1_048_576;
/** Of a larger one so much is kept, to tell what it was. */
export const KEPT_EXCESS_BYTES = 1_024;

export interface PlainPublishesOptions {
  readonly streams: Streams;
  readonly clock: Clock;
  readonly directory: DeviceDirectory;
  readonly desk: PublishDesk;
}

export class PlainPublishes {
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #directory: DeviceDirectory;
  readonly #desk: PublishDesk;
  readonly #batches = new Map<string, PlainBatch>();
  #spareMemory: Buffer | undefined;

  constructor(options: PlainPublishesOptions) {
    this.#streams = options.streams;
    this.#clock = options.clock;
    this.#directory = options.directory;
    this.#desk = options.desk;
  }

  take(session: Session, publish: Publish, stream: string, answers: Answers): void {
    const reason = unusable(publish.end - publish.from);
    if (reason !== undefined) {
      const kept = payloadOf(publish).subarray(0, KEPT_EXCESS_BYTES);
      this.#desk.quarantine(addressed(session, publish, answers), kept, reason);
      return;
    }
    const mayRepeat = this.#mayRepeat(session, publish, stream);
    let batch = this.#batches.get(stream);
    if (batch === undefined) {
      // What is gathered in a turn goes at its end; the log, too, takes what comes in a turn together.
      if (this.#batches.size === 0) setImmediate(() => this.flush());
      batch = new PlainBatch(this.#clock.nowUs(), this.#spareMemory);
      this.#spareMemory = undefined;
      this.#batches.set(stream, batch);
    }
    batch.add(session, publish, mayRepeat, answers);
    if (batch.isFull) this.#flushOne(stream, batch);
  }

  /** Hands over what was gathered, so that whatever is asked of the streams next knows of it. */
  flush(): void {
    for (const [stream, batch] of this.#batches) this.#flushOne(stream, batch);
  }

  #flushOne(stream: string, gathered: PlainBatch): void {
    this.#batches.delete(stream);
    const batch = gathered.inTurn();
    const missing = this.#desk.missing(stream);
    if (missing !== undefined) {
      for (let i = 0; i < batch.count; i++) {
        this.#desk.quarantine(batch.addressed(i), batch.payload(i), missing);
      }
      return;
    }
    const stored = this.#streams.appendPublishes(stream, batch.columns());
    this.#spareMemory = batch.giveMemory();
    stored.then(
      (outcomes) => this.#settle(batch, outcomes),
      (error: unknown) => {
        for (let i = 0; i < batch.count; i++)
          this.#desk.withhold(batch.sessions[i]!, batch.topics[i]!, error);
      },
    );
  }

  #settle(batch: PlainBatch, outcomes: readonly (AppendOutcome | Error)[]): void {
    let stored = 0;
    let duplicates = 0;
    /** Of the session in hand: a sensor's publishes often come together. */
    let records = 0;
    for (let i = 0; i < batch.count; i++) {
      const session = batch.sessions[i]!;
      const outcome = outcomes[i]!;
      if (outcome === "stored") records++;
      if (session !== batch.sessions[i + 1]) {
        if (records > 0) this.#directory.records(session.device, records);
        records = 0;
      }
      if (typeof outcome !== "string") this.#desk.withhold(session, batch.topics[i]!, outcome);
      if (session.withheld) continue;
      if (outcome === "duplicate") duplicates++;
      else stored++;
      batch.answers[i]!.acknowledge(batch.packetIds[i]!, batch.payloadBytes(i));
    }
    this.#desk.count("stored", stored);
    this.#desk.count("duplicate", duplicates);
  }

  /** Decided in the call, before anything is awaited: what follows in the same chunk depends on it. */
  #mayRepeat(session: Session, publish: Publish, stream: string): boolean {
    if (publish.qos === 0) return false;
    // [MQTT-3.3.1-1]: what DUP marks was sent before, perhaps on this very connection: some clients send
    // again when an answer takes its time.
    if (!publish.dup && (session.anew || session.fresh.has(stream))) return false;
    // An earlier connection of the client may have ended in this very turn.
    this.flush();
    const packetId = Math.max(publish.packetId, 0);
    session.anew ??= numbersAnew(packetId, publish.dup, (id) =>
      this.#streams.remembersPacket(session.clientId, id),
    );
    if (session.anew && !publish.dup) return false;
    const asked = {
      clientId: session.clientId,
      packetId,
      partitionKey: publish.destination.topic,
      timeUs: 0,
      payload: payloadOf(publish),
    };
    if (this.#desk.missing(stream) === undefined && this.#streams.recognises(stream, asked)) return true;
    session.fresh.add(stream);
    // Of what DUP marks the store has the last word: it may not know yet what is on its way.
    return publish.dup;
  }
}

/** Why it can be no record. */
function unusable(payloadBytes: number): string | undefined {
  if (payloadBytes === 0) return "empty payload";
  if (payloadBytes > MAX_PLAIN_BYTES) return `${payloadBytes} bytes; a record has at most ${MAX_PLAIN_BYTES}`;
  return undefined;
}
