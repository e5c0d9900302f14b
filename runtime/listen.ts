/** Opening a port, with an answer that an operator can use when it cannot be had. */
import type { AddressInfo, Server } from "node:net";
import { HeadwaterError } from "./errors.ts";

/** Another program listens there already. Nothing was started. */
export class PortBusyError extends HeadwaterError {
  constructor(host: string, port: number, cause: unknown) {
    super("PORT_BUSY", {
      message: `another program listens on ${host}:${port} already`,
      hint: "end that program, or set another port in the config",
      cause,
    });
  }
}

/** The address is not of this machine, or the port needs more rights. Nothing was started. */
export class PortUnusableError extends HeadwaterError {
  constructor(host: string, port: number, cause: NodeJS.ErrnoException) {
    super("PORT_UNUSABLE", {
      message: `cannot listen on ${host}:${port}: ${cause.code ?? cause.message}`,
      hint: "check the host and the port in the config",
      cause,
    });
  }
}

/**
 * Resolves with the port that is listened on, which matters when 0 was asked for.
 * @throws PortBusyError, PortUnusableError
 */
export function listenOn(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      reject(
        error.code === "EADDRINUSE"
          ? new PortBusyError(host, port, error)
          : new PortUnusableError(host, port, error),
      );
    };
    server.once("error", failed);
    server.listen(port, host, () => {
      server.off("error", failed);
      resolve((server.address() as AddressInfo).port);
    });
  });
}
