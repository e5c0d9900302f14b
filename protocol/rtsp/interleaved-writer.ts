/** RTP and RTCP out on the RTSP connection (RFC 2326 §10.12), counted so that nobody fills the memory. */
import type { Socket } from "node:net";
import { frameHead } from "./messages.ts";

export class InterleavedWriter {
  readonly #socket: Socket;
  readonly #maxBacklogBytes: number;
  #corked = false;

  constructor(socket: Socket, maxBacklogBytes: number) {
    this.#socket = socket;
    this.#maxBacklogBytes = maxBacklogBytes;
  }

  /** Bytes accepted but not yet taken by the network. */
  get backlogBytes(): number {
    return this.#socket.writableLength;
  }

  get full(): boolean {
    return this.#socket.writableLength >= this.#maxBacklogBytes;
  }

  /** Writes in any case. The packets of one turn of the event loop leave in one system call. */
  write(channel: number, payload: Buffer): void {
    if (this.#socket.destroyed || !this.#socket.writable) return;
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(frameHead(channel, payload.length));
    this.#socket.write(payload);
  }

  /** Calls `ready` once the network has taken everything; never, when the connection ends first. */
  whenDrained(ready: () => void): void {
    if (this.#socket.writableNeedDrain) this.#socket.once("drain", ready);
    else setImmediate(ready);
  }
}
