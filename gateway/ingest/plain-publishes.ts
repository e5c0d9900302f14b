/**
 * Plain sensors that publish straight to the gateway, without frames: each publish becomes one record
 * of the stream that a topic rule names, under its topic as partition key. Such a publish carries no
 * sequence, so packet id and payload tell whether it came before.
 */
import type { PublishPacket } from "aedes";
import { numbersAnew } from "../../protocol/packet-numbering.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type PlainPublish, StreamNotFoundError, type Streams } from "../streams/streams.ts";
import type { DeviceDirectory } from "./device-directory.ts";
import type { Quarantine } from "./quarantine.ts";
import type { TopicRules } from "./topic-rules.ts";

/** A plain sensor's publish is one record. */
const MAX_PLAIN_BYTES = 1_048_576;
/** Kinesis: of a partition key. */
const MAX_KEY_CHARACTERS = 256;

/** What is known of a plain sensor's connection. */
export interface PlainSession {
  readonly device: string;
  /**
   * Streams to which it has sent something new on this connection: what follows there is new as
   * well. Of each stream by itself, as one may have stored what another still lacked.
   */
  readonly fresh: Set<string>;
  /** Whether it numbers its packets anew, so that nothing on this connection is a resend; told by its first publish. */
  anew: boolean | undefined;
}

export function newPlainSession(device: string): PlainSession {
  return { device, fresh: new Set(), anew: undefined };
}

export interface PlainPublishesOptions {
  readonly streams: Streams;
  readonly directory: DeviceDirectory;
  readonly quarantine: Quarantine;
  readonly rules: TopicRules;
  readonly clock: Clock;
}

export class PlainPublishes {
  readonly #options: PlainPublishesOptions;

  constructor(options: PlainPublishesOptions) {
    this.#options = options;
  }

  /** Resolves with how it was answered. The append is made within the call, so order is kept. */
  store(clientId: string, session: PlainSession, packet: PublishPacket, payload: Buffer): Promise<string> {
    const { rules, streams, directory, clock } = this.#options;
    const { topic } = packet;
    const stream = rules.streamFor(topic);
    const invalid = stream === undefined ? "no rule matches its topic" : unusable(topic, payload);
    if (stream === undefined || invalid !== undefined) {
      const kept = payload.length > MAX_PLAIN_BYTES ? payload.subarray(0, 1_024) : payload;
      return this.#quarantine(clientId, topic, kept, invalid!);
    }
    const publish = {
      clientId,
      packetId: packet.messageId ?? 0,
      partitionKey: topic,
      timeUs: clock.nowUs(),
      payload,
      mayRepeat: false,
    };
    // Deleted, or never made: withheld, the publish would come again for ever.
    const failed = (error: unknown): Promise<string> => {
      if (!(error instanceof StreamNotFoundError)) throw error;
      return this.#quarantine(clientId, topic, payload, `there is no stream ${stream}`);
    };
    try {
      publish.mayRepeat = this.#mayRepeat(session, packet, stream, publish);
      return streams.appendPublish(stream, publish).then((outcome) => {
        if (outcome === "stored") directory.record(session.device);
        return outcome;
      }, failed);
    } catch (error) {
      return new Promise((resolve) => resolve(failed(error)));
    }
  }

  /** Decided in the call, before anything is awaited: what follows in the same chunk depends on it. */
  #mayRepeat(
    session: PlainSession,
    packet: PublishPacket,
    stream: string,
    publish: Omit<PlainPublish, "mayRepeat">,
  ): boolean {
    if (packet.qos === 0) return false;
    const { streams } = this.#options;
    session.anew ??= numbersAnew(publish.packetId, packet.dup, (packetId) =>
      streams.remembersPacket(publish.clientId, packetId),
    );
    if (session.anew || session.fresh.has(stream)) return false;
    if (streams.recognises(stream, publish)) return true;
    session.fresh.add(stream);
    return false;
  }

  async #quarantine(client: string, topic: string, payload: Buffer, reason: string): Promise<string> {
    const { quarantine, clock } = this.#options;
    await quarantine.keep({ timeUs: clock.nowUs(), client, topic, reason, payload });
    return "quarantined";
  }
}

/** Why it can be no record. */
function unusable(topic: string, payload: Buffer): string | undefined {
  if (payload.length === 0) return "empty payload";
  if (payload.length > MAX_PLAIN_BYTES)
    return `${payload.length} bytes; a record has at most ${MAX_PLAIN_BYTES}`;
  // A UTF-16 unit is at most three bytes of UTF-8, so the log's limit of 1,024 bytes holds as well.
  if (topic.length > MAX_KEY_CHARACTERS) return "its topic is longer than a partition key may be";
  return undefined;
}
