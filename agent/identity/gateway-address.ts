/** Where a gateway's HTTPS port is, as operators and configs write it. */
import { DEFAULT_HTTPS_PORT } from "../../protocol/joining.ts";
import { HeadwaterError } from "../../runtime/errors.ts";

export interface GatewayAddress {
  readonly host: string;
  readonly port: number;
}

/** The first argument of `join` is no address. */
export class GatewayAddressError extends HeadwaterError {
  constructor(text: string) {
    super("GATEWAY_ADDRESS", {
      message: `${JSON.stringify(text.slice(0, 100))} is no address of a gateway`,
      hint: "write its name or IP address, with :PORT where it is not 8443",
    });
  }
}

/** `gateway.example`, `10.0.0.1:8443`, `[fd00::1]:8443`, with or without https://. @throws GatewayAddressError */
export function parseAddress(text: string): GatewayAddress {
  const bare = text
    .trim()
    .replace(/^https:\/\//i, "")
    .replace(/\/$/, "");
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9][A-Za-z0-9.-]{0,252}))(?::(\d{1,5}))?$/.exec(bare);
  const port = Number(match?.[3] ?? DEFAULT_HTTPS_PORT);
  if (match === null || port === 0 || port > 65_535) throw new GatewayAddressError(text);
  return { host: (match[1] ?? match[2])!, port };
}
