/**
 * How far what was written to a connection has come. Node says what it handed to the kernel; what the
 * peer's kernel has not confirmed yet Linux says, in /proc/net/tcp (Documentation/networking/proc_net_tcp.rst).
 */
import { readFile } from "node:fs/promises";

export interface Outgoing {
  /** Confirmed by the peer's kernel. Over TLS it falls back whenever the kernel takes more of one large write. */
  readonly confirmedBytes: number;
  /** Written, and not confirmed. */
  readonly unconfirmedBytes: number;
}

/** What is needed of a net.Socket. */
export interface Connection {
  readonly localPort?: number | undefined;
  readonly remotePort?: number | undefined;
  /** Also those that wait here. */
  readonly bytesWritten: number;
  /** Of writes that the kernel has not taken wholly. */
  readonly writableLength: number;
}

/** What Node does not document: of the write that is under way, all of it and what the kernel has not taken. */
interface Insides {
  readonly _writableState?: { readonly writelen?: unknown };
  readonly _handle?: { readonly writeQueueSize?: unknown } | null;
}

const TABLES = ["/proc/self/net/tcp", "/proc/self/net/tcp6"] as const;
/** slot, local address, remote address, state, sending:receiving queue; all in hexadecimal. */
const LINE =
  /^ *\d+: [0-9A-F]{8,32}:([0-9A-F]{4}) [0-9A-F]{8,32}:([0-9A-F]{4}) [0-9A-F]{2} ([0-9A-F]{8}):[0-9A-F]{8} /;

/** Undefined where the system does not say. */
export async function outgoing(connection: Connection | undefined): Promise<Outgoing | undefined> {
  if (connection?.localPort === undefined || connection.remotePort === undefined) return undefined;
  for (const table of TABLES) {
    const text = await readFile(table, "latin1").catch(() => "");
    const queued = queuedBytes(text, connection.localPort, connection.remotePort);
    if (queued === undefined) continue;
    const waiting = connection.writableLength - takenOfCurrentWrite(connection);
    return {
      confirmedBytes: connection.bytesWritten - waiting - queued,
      unconfirmedBytes: waiting + queued,
    };
  }
  return undefined;
}

/** A large write counts as waiting until all of it is taken. 0 where Node's insides are not as expected. */
function takenOfCurrentWrite(connection: Connection & Insides): number {
  const all = connection._writableState?.writelen;
  const left = connection._handle?.writeQueueSize;
  if (typeof all !== "number" || typeof left !== "number") return 0;
  return Math.max(0, Math.min(all - left, connection.writableLength));
}

/** @param table the text of /proc/net/tcp */
export function queuedBytes(table: string, localPort: number, remotePort: number): number | undefined {
  for (const line of table.split("\n")) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, local, remote, queue] = match as unknown as [string, string, string, string];
    if (Number.parseInt(local, 16) === localPort && Number.parseInt(remote, 16) === remotePort)
      return Number.parseInt(queue, 16);
  }
  return undefined;
}
