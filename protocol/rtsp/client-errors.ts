/** What can go wrong for an RTSP client. None of these shows a password. */
import { HeadwaterError } from "../../runtime/errors.ts";

/** No connection, or it broke. */
export class RtspConnectError extends HeadwaterError {
  constructor(url: string, reason: string, cause?: unknown) {
    super("RTSP_CONNECT", {
      retryable: true,
      message: `${url}: ${reason}`,
      hint: "check that the address is right and the camera or gateway is running",
      cause,
    });
  }
}

/** The other side answered with another status than 200. */
export class RtspStatusError extends HeadwaterError {
  readonly status: number;

  constructor(url: string, method: string, status: number, reason: string) {
    super("RTSP_REFUSED", {
      retryable: status >= 500,
      message: `${method} ${url}: ${status} ${reason}`,
      ...(status === 401 && { hint: "check the user and the password" }),
      ...(status === 404 && { hint: "check the path in the address" }),
    });
    this.status = status;
  }
}

/** The other side did not answer in time; the connection is closed. */
export class RtspTimeoutError extends HeadwaterError {
  constructor(url: string, method: string, timeoutMs: number) {
    super("RTSP_TIMEOUT", { retryable: true, message: `${method} ${url}: no answer within ${timeoutMs} ms` });
  }
}

/** The address is no rtsp:// address. It is not shown, as it may hold a password. */
export class RtspAddressError extends HeadwaterError {
  constructor() {
    super("RTSP_ADDRESS", {
      message: "not an RTSP address",
      hint: "write it as rtsp://host:port/path, with special characters of a password as %XX",
    });
  }
}
