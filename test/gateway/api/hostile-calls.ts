/** Calls of the Kinesis API as nobody's SDK makes them, and what every answer to such a call has to be. */
import assert from "node:assert/strict";
import http from "node:http";
import { decodeCbor } from "../../../gateway/api/kinesis/wire/cbor.ts";
import type { Log, LogFields } from "../../../runtime/log.ts";
import { sign } from "./sign.ts";

export const AWS_JSON = "application/x-amz-json-1.1";
export const AWS_CBOR = "application/x-amz-cbor-1.1";
/** Long, as a busy machine or disk may hold up any answer; one that never comes fails all the same. */
const DEADLINE_MS = 60_000;

/** What the gateway tells its operator; a bad request is no reason to tell them anything. */
export class Complaints implements Log {
  readonly errors: LogFields[] = [];
  debug(): void {}
  info(): void {}
  warn(): void {}
  error(fields: LogFields): void {
    this.errors.push(fields);
  }
  child(): Log {
    return this;
  }
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Of an answer that goes on, only what came with its head. */
  readonly body: Buffer;
}

export class HostileCaller {
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  readonly port: number;

  constructor(port: number) {
    this.port = port;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** Signed as it should be; only the target and the body are odd. */
  async signed(operation: string, body: Buffer | string, contentType = AWS_JSON): Promise<RawAnswer> {
    const headers = await sign({
      headers: {
        host: `127.0.0.1:${this.port}`,
        "content-type": contentType,
        "x-amz-target": `Kinesis_20131202.${operation}`,
      },
      body,
    });
    return await this.post(headers, body);
  }

  /** Headers and body as they are. @throws when no answer comes within a minute */
  post(headers: Record<string, string>, body: Buffer | string, path = "/"): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const request = http.request(
        { port: this.port, host: "127.0.0.1", method: "POST", path, headers, agent: this.#agent },
        (answer) => {
          const chunks: Buffer[] = [];
          const done = (): void => {
            clearTimeout(deadline);
            const { statusCode = 0, headers } = answer;
            resolve({ status: statusCode, headers, body: Buffer.concat(chunks) });
          };
          answer.on("data", (chunk: Buffer) => chunks.push(chunk));
          answer.on("end", done);
          // It would go on for five minutes; its head is all that is asked for.
          if (answer.headers["content-type"] === "application/vnd.amazon.eventstream") {
            answer.once("data", () => {
              done();
              request.destroy();
            });
          }
        },
      );
      const deadline = setTimeout(() => request.destroy(new Error("no answer")), DEADLINE_MS);
      request.on("error", (error) => {
        clearTimeout(deadline);
        reject(error);
      });
      request.end(body);
    });
  }
}

/** @returns the error's name; undefined for an answer that is none */
export function assertAwsShaped({ status, headers, body }: RawAnswer, context: string): string | undefined {
  const told = `${context}: ${status} ${body.toString("latin1").slice(0, 300)}`;
  assert.match(headers["x-amzn-requestid"] as string, /^[0-9a-f-]{36}$/, told);
  if (status === 200) return undefined;
  assert.ok(status === 400 || status === 413, told);
  const isCbor = headers["content-type"] === AWS_CBOR;
  if (!isCbor) assert.equal(headers["content-type"], AWS_JSON, told);
  const answer = (isCbor ? decodeCbor(body) : JSON.parse(body.toString())) as Record<string, unknown>;
  assert.match(String(answer.__type), /^[A-Za-z]+Exception$/, told);
  assert.ok(typeof answer.message === "string" && answer.message.length > 0, told);
  // A hostile value is not sent back at any length.
  assert.ok(answer.message.length < 20_000, told);
  return answer.__type as string;
}
