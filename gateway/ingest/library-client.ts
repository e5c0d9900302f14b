/**
 * What the publish lane uses of the broker library's client beside its types. The library's version is
 * pinned; where something is not as it is expected here, nothing of it is touched.
 */
import type { Socket } from "node:net";
import type { Client, PublishPacket } from "aedes";

export interface InnerClient extends Client {
  readonly conn: Socket;
  readonly connackSent: boolean;
  readonly _keepaliveInterval: number;
  readonly _keepaliveTimer: NodeJS.Timeout | null;
  /** Packets that it is at; it reads on when there is none. Begins with 1, for the first reading. */
  _parsingBatch: number;
  /** Called for each packet that is done with, and when there is something to read. */
  _nextBatch: (error?: Error | null) => void;
  readonly _parser: InnerParser;
  waitForDrain(done: (error?: Error | null) => void): void;
}

interface InnerParser {
  parse(chunk: Buffer): number;
  /** Packets that came before CONNECT was answered; null once it was. */
  readonly _queue: unknown[] | null;
  listeners(event: "packet"): Array<(packet: PublishPacket) => void>;
  removeAllListeners(event: "packet"): void;
  on(event: "packet", listener: (packet: PublishPacket) => void): void;
}

/** @param client that has not been heard yet */
export function innerClient(client: Client): InnerClient | undefined {
  const inner = client as InnerClient;
  const asExpected =
    inner._parser?.listeners?.("packet").length === 1 &&
    Array.isArray(inner._parser._queue) &&
    typeof inner._nextBatch === "function" &&
    inner._parsingBatch === 1;
  return asExpected ? inner : undefined;
}
