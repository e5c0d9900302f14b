/** Connections over HTTP/2 whose frames a test makes itself. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { FLAG, FRAME, frame, PREFACE, SETTING, settings } from "../../../bench/load/http2-frames.ts";

/** No bytes of any answer may leave. */
export const NO_WINDOW: Parameters<typeof settings>[0] = [[SETTING.initialWindowSize, 0]];

/** What the server has set counts from here on. */
export const SETTINGS_ACK = frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0));

/** A connection that has begun, until the test ends; that it breaks is no error. */
export async function openRawHttp2(
  t: TestContext,
  port: number,
  values: Parameters<typeof settings>[0] = [],
): Promise<Socket> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  t.after(() => socket.destroy());
  await once(socket, "connect");
  socket.write(Buffer.concat([PREFACE, settings(values)]));
  return socket;
}
