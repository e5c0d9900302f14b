/** Connections of those who do not speak as they should. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectSecurely, type TLSSocket } from "node:tls";

/** Nonsense is answered or cut off within this time: what may still become a sentence has as long as a silent client. */
const ANSWER_MS = 120_000;

export async function opened(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  // How it ends is not what matters.
  socket.on("error", () => {});
  return socket;
}

export async function openedSecurely(port: number, options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connectSecurely({ ...options, host: "127.0.0.1", port });
  await once(socket, "secureConnect");
  socket.on("error", () => {});
  return socket;
}

/** Says this, and stays until the gateway has had enough of it. */
export async function junk(port: number, bytes: Buffer): Promise<void> {
  const socket = await opened(port);
  try {
    const closed = once(socket, "close");
    socket.resume();
    socket.write(bytes);
    // Junk may look like the beginning of something; its end tells the gateway that nothing follows.
    socket.end();
    await within(closed, "the end of the connection");
  } finally {
    socket.destroy();
  }
}

/** @throws when it takes longer than anybody may be kept waiting */
export function within<T>(work: Promise<T>, what: string): Promise<T> {
  let late: NodeJS.Timeout | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    late = setTimeout(() => reject(new Error(`not within ${ANSWER_MS} ms: ${what}`)), ANSWER_MS);
  });
  return Promise.race([work, tooLate]).finally(() => clearTimeout(late));
}
