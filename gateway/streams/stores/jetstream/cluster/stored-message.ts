/** A message as the cluster keeps it, from either of the two ways in which it can be asked for. */
import type { ApiError } from "@nats-io/jetstream";
import type { Msg } from "@nats-io/transport-node";

export const EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence";
export const ID_HEADER = "Nats-Msg-Id";

export interface StoredMessage {
  readonly sequence: number;
  readonly subject: string;
  readonly payload: Uint8Array;
  /** "" when it has none of this name. */
  readonly header: (name: string) => string;
}

/** What $JS.API.STREAM.MSG.GET answers. */
export interface LeaderAnswer {
  readonly error?: ApiError;
  readonly message?: {
    readonly subject: string;
    readonly seq: number;
    readonly hdrs?: string;
    readonly data?: string;
  };
}

/** Sequence of the message behind which it wanted to stand; 0 for none. */
export function expectedOf(message: Pick<StoredMessage, "header">): number {
  return Number(message.header(EXPECTED_HEADER)) || 0;
}

export function fromLeader(message: NonNullable<LeaderAnswer["message"]>): StoredMessage {
  const fields = Buffer.from(message.hdrs ?? "", "base64").toString();
  return {
    sequence: message.seq,
    subject: message.subject,
    payload: Buffer.from(message.data ?? "", "base64"),
    header: (name) =>
      fields
        .split("\r\n")
        .find((line) => line.startsWith(`${name}: `))
        ?.slice(name.length + 2) ?? "",
  };
}

/** What $JS.API.DIRECT.GET answers: the message itself, its place in headers. */
export function fromReplica(message: Msg): StoredMessage | undefined {
  const { headers } = message;
  if (headers === undefined || headers.code === 404) return undefined;
  return {
    sequence: Number(headers.get("Nats-Sequence")),
    subject: headers.get("Nats-Subject"),
    payload: message.data,
    header: (name) => headers.get(name),
  };
}
