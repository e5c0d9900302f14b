/** Load over HTTP/2 by prior knowledge, one stream at a time on each connection. Node's own client, so it costs more than raw sockets. */
import { type ClientHttp2Session, connect, constants } from "node:http2";
import { percentile } from "../floor.ts";
import type { Driven, DriveOptions } from "./drive.ts";
import type { SignedCall } from "./kinesis-requests.ts";

const WINDOW_BYTES = 8 * 1_048_576;

export async function driveHttp2(
  calls: readonly SignedCall[],
  connections: number,
  options: DriveOptions,
): Promise<Driven> {
  const sessions = await Promise.all(
    Array.from({ length: connections }, () => opened(options.host, options.port)),
  );
  const waits: number[] = [];
  let measuring = false;
  let ended = false;
  const talk = async (session: ClientHttp2Session, nth: number): Promise<void> => {
    for (let turn = nth; !ended; turn++) {
      const sent = performance.now();
      await ask(session, calls[turn % calls.length]!);
      if (measuring) waits.push(performance.now() - sent);
    }
  };
  const talking = Promise.all(sessions.map(talk));
  talking.catch(() => {});
  const wait = (ms: number) => Promise.race([new Promise((resolve) => setTimeout(resolve, ms)), talking]);
  try {
    await wait(options.warmMs);
    measuring = true;
    options.onWarm();
    const began = performance.now();
    await wait(options.measureMs);
    const seconds = (performance.now() - began) / 1000;
    return { requests: waits.length, seconds, p50Ms: percentile(waits, 0.5), p99Ms: percentile(waits, 0.99) };
  } finally {
    ended = true;
    for (const session of sessions) session.destroy();
  }
}

function opened(host: string, port: number): Promise<ClientHttp2Session> {
  const session = connect(`http://${host}:${port}`, { settings: { initialWindowSize: WINDOW_BYTES } });
  return new Promise((resolve, reject) => {
    session.once("error", reject);
    session.once("remoteSettings", () => {
      session.setLocalWindowSize(WINDOW_BYTES);
      resolve(session);
    });
  });
}

function ask(session: ClientHttp2Session, { headers, body }: SignedCall): Promise<void> {
  return new Promise((resolve, reject) => {
    const { host, ...rest } = headers;
    const stream = session.request({ ...rest, ":method": "POST", ":path": "/", ":authority": host });
    let status = 0;
    stream.once("response", (answer) => {
      status = Number(answer[constants.HTTP2_HEADER_STATUS]);
    });
    stream.once("error", reject);
    stream.resume();
    stream.once("end", () => (status === 200 ? resolve() : reject(new Error(`refused: status ${status}`))));
    stream.end(body);
  });
}
