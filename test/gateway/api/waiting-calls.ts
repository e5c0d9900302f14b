/** A thread of clients: what they send waits in the kernel while the thread of the test stands still. */
import { once } from "node:events";
import http2 from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { parentPort, workerData } from "node:worker_threads";

export interface WaitingCalls {
  readonly port: number;
  /** Calls over HTTP/1.1, each by a connection of its own; over HTTP/2 there are as many. */
  readonly calls: readonly string[];
  /** Its first number becomes 1 when the kernel has them all. */
  readonly sent: Int32Array;
}

interface Sent {
  /** What came, or why nothing did. */
  readonly answer: Promise<string>;
}

async function overHttp1(port: number, call: string): Promise<Sent> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  const answer = text(socket).catch(String);
  await new Promise((resolve) => socket.write(call, resolve));
  return { answer };
}

async function overHttp2(port: number): Promise<Sent> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on("error", () => {});
  const stream = session.request({ ":method": "POST", ":path": "/", "x-amz-target": "h2" });
  const answer = text(stream).catch(String);
  stream.end(".");
  await once(stream, "finish");
  return { answer };
}

const { port, calls, sent } = workerData as WaitingCalls;
const all = await Promise.all(calls.flatMap((call) => [overHttp1(port, call), overHttp2(port)]));
Atomics.store(sent, 0, 1);
Atomics.notify(sent, 0);
parentPort!.postMessage(await Promise.all(all.map(({ answer }) => answer)));
