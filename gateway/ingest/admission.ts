/**
 * Who is let in at the MQTT door, as which device, and under which client id.
 *
 *   by TLS with a certificate → as the device that it proves, and as no other
 *   devices are configured    → as the one whose password is given
 *   none are, and not by TLS  → everybody; a name is only a label
 */
import { randomUUID } from "node:crypto";
import type { Client } from "aedes";
import type { DeviceDirectory } from "./device-directory.ts";
import { newSession, type Session } from "./publish.ts";
import type { PublishDesk } from "./publish-desk.ts";

/** A name that is only a label is shown in the console. */
export const MAX_LABEL_CHARACTERS = 128;

export class Admission {
  readonly #directory: DeviceDirectory;
  readonly #desk: PublishDesk;
  /** Of sockets that came by TLS: the device that its certificate proves, or undefined without one. */
  readonly #secure = new WeakMap<object, string | undefined>();

  constructor(directory: DeviceDirectory, desk: PublishDesk) {
    this.#directory = directory;
    this.#desk = desk;
  }

  /** @param device what its certificate proves; without one it needs a configured device's password */
  cameByTls(socket: object, device: string | undefined): void {
    this.#secure.set(socket, device);
  }

  isByTls(socket: object): boolean {
    return this.#secure.has(socket);
  }

  /**
   * Where devices are told apart, client ids are the device's own, so that none can end another's connection,
   * or make its readings pass for known, by taking its id. One without an id gets one of its own, too.
   */
  clientId(client: Client, username: string | undefined, asked: string | undefined): string {
    const proven = this.#secure.get(client.conn);
    // Who is not what it says is refused before it is known to anybody.
    const device = proven ?? (this.#directory.open ? undefined : username?.slice(0, MAX_LABEL_CHARACTERS));
    if (device === undefined) return asked ?? "";
    return `${device}/${asked || randomUUID()}`;
  }

  /** Undefined when it is refused; that is counted. */
  admit(client: Client, username: string | undefined, password: Uint8Array | undefined): Session | undefined {
    const proven = this.#secure.get(client.conn);
    if (proven !== undefined && (username ?? proven) === proven) return newSession(client, proven, true);
    const mayTry = proven === undefined && !(this.#directory.open && this.isByTls(client.conn));
    if (mayTry && this.#directory.admits(username, password)) {
      // Without configured devices the client's id serves as well for a name.
      return newSession(client, (username ?? client.id).slice(0, MAX_LABEL_CHARACTERS));
    }
    this.#desk.refuse("credentials");
    const fields = { client: client.id, device: username?.slice(0, 64) };
    this.#desk.warn(fields, "device refused: unknown, or wrong password");
    return undefined;
  }
}
