/**
 * Which requests may come from a browser at all. The Host must be an address of ours, or a page of
 * another site could reach us under its own name (DNS rebinding); an Origin, where one is sent, must
 * be that same host, or a page of another site could act with the cookie of whoever looks at it.
 * Who names no Host (HTTP/1.0, as load balancers that ask for /healthz) is no browser.
 */
import type { IncomingMessage } from "node:http";
import { plainAddress } from "../exchange.ts";
import { ConsoleError } from "./console-reply.ts";

export interface Arrival {
  /** Empty where none is named. */
  readonly host: string;
  readonly origin: string | undefined;
  /** The address of ours that the client reached. */
  readonly localAddress: string;
}

export function arrivalOf(request: IncomingMessage): Arrival {
  return {
    host: request.headers.host ?? "",
    origin: request.headers.origin,
    localAddress: plainAddress(request.socket.localAddress),
  };
}

/** @param hostNames further names under which the gateway may be called */
export function checkOrigin(arrival: Arrival, hostNames: readonly string[]): void {
  const name = hostName(arrival.host);
  const ours = ["localhost", arrival.localAddress, ...hostNames];
  if (arrival.host !== "" && (name === undefined || !ours.includes(name))) {
    throw new ConsoleError(
      403,
      "HOST_NOT_ALLOWED",
      "this gateway does not answer under that name",
      `open it as ${arrival.localAddress} or localhost`,
    );
  }
  if (arrival.origin !== undefined && originHost(arrival.origin) !== arrival.host.toLowerCase()) {
    throw new ConsoleError(403, "ORIGIN_NOT_ALLOWED", "pages of other sites may not use this gateway");
  }
}

/** The Host header without its port and, for IPv6, its brackets; undefined when it is malformed. */
export function hostName(host: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::\d{1,5})?$/.exec(host);
  return (match?.[1] ?? match?.[2])?.toLowerCase();
}

function originHost(origin: string): string | undefined {
  const match = /^https?:\/\/([^/?#@\s]+)$/.exec(origin.toLowerCase());
  return match?.[1];
}
