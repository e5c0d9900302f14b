/**
 * The connection to a NATS cluster, held for as long as the gateway lives: whatever the nodes do, it is
 * sought again, at any of them. That it is lost and found is said in the log.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import {
  type Authenticator,
  AuthorizationError,
  connect,
  credsAuthenticator,
  type NatsConnection,
  UserAuthenticationExpiredError,
} from "@nats-io/transport-node";
import { describeError } from "../../../../../runtime/errors.ts";
import type { Log } from "../../../../../runtime/log.ts";
import { JetStreamUnfitError } from "./jet-streams.ts";

/** A node that hangs takes a connection, and says nothing on it. */
const CONNECT_WITHIN_MS = 5_000;
/** A frame has at most 12 MiB. */
const MIN_MAX_PAYLOAD_BYTES = 13 * 1_048_576;
const PAYLOAD_HINT = "set max_payload: 16MB in the configuration of every nats-server";

export interface ConnectionOptions {
  readonly servers: readonly string[];
  readonly credentialsFile?: string;
  readonly log: Log;
  /** Called when there is a connection again: what was said to others meanwhile they have not heard. */
  readonly reconnected: () => void;
}

/** @throws JetStreamUnfitError */
export async function openConnection(options: ConnectionOptions): Promise<NatsConnection> {
  const { servers, credentialsFile, log, reconnected } = options;
  const credentials =
    credentialsFile === undefined
      ? {}
      : { authenticator: renewedCredentials(credentialsFile, await readCredentials(credentialsFile), log) };
  let nc: NatsConnection;
  try {
    nc = await connect({
      servers: [...servers],
      maxReconnectAttempts: -1,
      // Who is refused is refused until somebody mends it, at the nodes or in the credentials file: no reason
      // to give up for good, after which the gateway would answer nothing until it is started again.
      ignoreAuthErrorAbort: true,
      reconnectTimeWait: 250,
      reconnectJitter: 250,
      // A node that hangs without closing its sockets is left after two of these.
      pingInterval: 5_000,
      timeout: CONNECT_WITHIN_MS,
      ...credentials,
    });
  } catch (error) {
    throw notConnected(servers, error);
  }
  const maxBytes = maxBytesOf(nc);
  if (maxBytes < MIN_MAX_PAYLOAD_BYTES) {
    await nc.close();
    throw new JetStreamUnfitError(`the NATS servers take messages of ${maxBytes} bytes only`, PAYLOAD_HINT);
  }
  void tell(nc, log, reconnected);
  return nc;
}

/** Of a message, on the node that it is connected to. */
function maxBytesOf(nc: NatsConnection): number {
  return nc.info?.max_payload ?? 0;
}

/** Who is refused has to look elsewhere than who gets no answer. */
function notConnected(servers: readonly string[], error: unknown): JetStreamUnfitError {
  const named = servers.join(", ");
  if (error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError) {
    const hint =
      "check store.jetstream.credentialsFile in gateway.yaml, and the user's rights on the NATS servers";
    return new JetStreamUnfitError(
      `the NATS servers (${named}) refuse the gateway: ${error.message}`,
      hint,
      error,
    );
  }
  const hint = "start the NATS cluster, and check store.jetstream.servers in gateway.yaml";
  return new JetStreamUnfitError(`no NATS server of ${named} answers`, hint, error);
}

async function readCredentials(file: string): Promise<Uint8Array> {
  try {
    const read = await readFile(file);
    credsAuthenticator(read)();
    return read;
  } catch (error) {
    const hint = "let store.jetstream.credentialsFile in gateway.yaml name a NATS user's .creds file";
    throw new JetStreamUnfitError(
      `the NATS credentials in ${file} cannot be used: ${describeError(error)}`,
      hint,
      error,
    );
  }
}

/**
 * Read at each connection, as credentials expire and are replaced. Those that cannot be read, or are half written, leave the
 * last: the client gives its connection up for good when it gets none.
 */
function renewedCredentials(file: string, first: Uint8Array, log: Log): Authenticator {
  let last = first;
  return (nonce) => {
    try {
      const read = readFileSync(file);
      const auth = credsAuthenticator(read)(nonce);
      last = read;
      return auth;
    } catch (error) {
      log.warn({ file, error: describeError(error) }, "the NATS credentials cannot be read again");
      return credsAuthenticator(last)(nonce);
    }
  };
}

/**
 * Ends with the connection. What a server says again at each try is said once. A node that takes smaller messages than a gateway
 * stores is left again: what is too large for it would be tried in vain for a minute each time, and be said to be the cluster's silence.
 */
async function tell(nc: NatsConnection, log: Log, reconnected: () => void): Promise<void> {
  let said = "";
  let isFit = true;
  for await (const status of nc.status()) {
    if (status.type === "disconnect") {
      if (isFit)
        log.warn({ server: status.server }, "the connection to a NATS node is lost; another is sought");
    } else if (status.type === "reconnect") {
      const wasFit = isFit;
      const maxBytes = maxBytesOf(nc);
      isFit = maxBytes >= MIN_MAX_PAYLOAD_BYTES;
      if (isFit) {
        said = "";
        log.info({ server: status.server }, "connected to a NATS node again");
        reconnected();
        continue;
      }
      if (wasFit) {
        const what = "a NATS node takes messages of fewer bytes than a frame may have; another is sought";
        log.error({ server: status.server, maxBytes }, `${what}; ${PAYLOAD_HINT}`);
      }
      await nc.reconnect();
    } else if (status.type === "staleConnection") {
      cut(nc);
    } else if (status.type === "error" && said !== describeError(status.error)) {
      said = describeError(status.error);
      log.error({ error: said }, "a NATS node refuses");
    }
  }
}

/**
 * The library ends a connection on which nobody answers with a last write, and waits until that is sent. Where more is on its way than the
 * system's buffers take, that is never to a node that hangs, and in a quarter of an hour to one without power.
 */
function cut(nc: NatsConnection): void {
  const { protocol } = nc as { protocol?: { transport?: { socket?: Socket } } };
  protocol?.transport?.socket?.destroy();
}
