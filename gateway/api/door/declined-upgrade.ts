/**
 * Requests that offer to go on in another protocol, as curl (`--http2`) and Java's HttpClient offer h2c.
 * A server may ignore that (RFC 9110 §7.8), but Node's gives each such connection to whoever upgrades to
 * WebSocket. So the request is written anew without the offer, to be read from its start.
 */
import type { IncomingMessage } from "node:http";

const LEFT_OUT = new Set(["upgrade", "http2-settings", "connection", "keep-alive"]);

export function isWebSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === "websocket";
}

/**
 * What its connection would have brought without the offer. It closes behind the answer: a client that
 * offers with every request would be taken back from Node's server as often.
 * @param behind what came behind the head
 */
export function withoutUpgrade(request: IncomingMessage, behind: Buffer): Buffer {
  const { method, url, httpVersion, rawHeaders } = request;
  const lines = [`${method} ${url} HTTP/${httpVersion}`];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (!LEFT_OUT.has(rawHeaders[i]!.toLowerCase())) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
  }
  const head = `${lines.join("\r\n")}\r\nConnection: close\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), behind]);
}
