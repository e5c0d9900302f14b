/** A websocket that comes back by itself, with full-jitter back-off, until it is closed. */

const BASE_MS = 500;
const CAP_MS = 8_000;
/** A connection that lasted so long was a good one: the next wait is short again. */
const GOOD_MS = 5_000;

export interface LiveSocketHandler {
  onOpen?(): void;
  onText(text: string): void;
  onBinary?(bytes: ArrayBuffer): void;
  onLost?(): void;
}

export class LiveSocket {
  readonly #address: string;
  readonly #handler: LiveSocketHandler;
  #socket: WebSocket | undefined;
  #timer: number | undefined;
  #attempt = 0;
  #closed = false;

  constructor(address: string, handler: LiveSocketHandler) {
    this.#address = address;
    this.#handler = handler;
    this.#connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  #connect(): void {
    const socket = new WebSocket(this.#address);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let openedMs = Infinity;
    socket.onopen = () => {
      openedMs = performance.now();
      if (!this.#closed) this.#handler.onOpen?.();
    };
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (this.#closed) return;
      if (typeof data === "string") this.#handler.onText(data);
      else this.#handler.onBinary?.(data);
    };
    socket.onclose = () => {
      if (this.#closed) return;
      if (performance.now() - openedMs > GOOD_MS) this.#attempt = 0;
      this.#handler.onLost?.();
      const ceilingMs = Math.min(CAP_MS, BASE_MS * 2 ** this.#attempt++);
      this.#timer = window.setTimeout(() => this.#connect(), 100 + Math.random() * ceilingMs);
    };
  }
}
