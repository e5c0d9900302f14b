/**
 * The connection to a NATS cluster, held for as long as the gateway lives: whatever the nodes do, it is
 * sought again, at any of them. That it is lost and found is said in the log.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import {
  type Authenticator,
  connect,
  credsAuthenticator,
  type NatsConnection,
} from "@nats-io/transport-node";
import { describeError } from "../../../../runtime/errors.ts";
import type { Log } from "../../../../runtime/log.ts";
import { JetStreamUnfitError } from "./jet-streams.ts";

/** A node that hangs takes a connection, and says nothing on it. */
const CONNECT_WITHIN_MS = 5_000;
/** A frame has at most 12 MiB. */
const MIN_MAX_PAYLOAD_BYTES = 13 * 1_048_576;

export interface ConnectionOptions {
  readonly servers: readonly string[];
  readonly credentialsFile?: string;
  readonly log: Log;
}

/** @throws JetStreamUnfitError */
export async function openConnection(options: ConnectionOptions): Promise<NatsConnection> {
  const { servers, credentialsFile, log } = options;
  const credentials =
    credentialsFile === undefined
      ? {}
      : { authenticator: renewedCredentials(credentialsFile, await readFile(credentialsFile), log) };
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
    const hint = "start the NATS cluster, and check store.servers in gateway.yaml";
    throw new JetStreamUnfitError(`no NATS server of ${servers.join(", ")} answers`, hint, error);
  }
  const maxBytes = nc.info?.max_payload ?? 0;
  if (maxBytes < MIN_MAX_PAYLOAD_BYTES) {
    await nc.close();
    const hint = "set max_payload: 16MB in the configuration of every nats-server";
    throw new JetStreamUnfitError(`the NATS servers take messages of ${maxBytes} bytes only`, hint);
  }
  void tell(nc, log);
  return nc;
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

/** Ends with the connection. What a server says again at each try is said once. */
async function tell(nc: NatsConnection, log: Log): Promise<void> {
  let said = "";
  for await (const status of nc.status()) {
    if (status.type === "disconnect") {
      log.warn({ server: status.server }, "the connection to a NATS node is lost; another is sought");
    } else if (status.type === "reconnect") {
      said = "";
      log.info({ server: status.server }, "connected to a NATS node again");
    } else if (status.type === "error" && said !== describeError(status.error)) {
      said = describeError(status.error);
      log.error({ error: said }, "a NATS node refuses");
    }
  }
}
