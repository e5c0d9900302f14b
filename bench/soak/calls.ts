/** Kinesis calls over HTTP/1.1, in JSON or CBOR, over kept connections or a new one each; and the SDK over HTTP/2. All of it plain or over TLS. */
import { type Agent, Agent as PlainAgent, request } from "node:http";
import { request as requestSecurely, Agent as SecureAgent } from "node:https";
import type { ConnectionOptions } from "node:tls";
import { KinesisClient } from "@aws-sdk/client-kinesis";
import { NodeHttp2Handler } from "@smithy/node-http-handler";
import { Decoder } from "cbor-x";
import { bodyOf, type Codec, type Endpoint, signed } from "../load/kinesis-requests.ts";

/** Where calls go to. */
export interface Door extends Endpoint {
  /** Of the TLS port. */
  readonly tls?: ConnectionOptions;
}

/** Times come as 64-bit whole numbers. */
const cbor = new Decoder({ useRecords: false, mapsAsObjects: true, int64AsNumber: true } as object);

export interface Answer {
  readonly status: number;
  readonly body: Buffer;
}

/** What is sent as it is, with these headers. */
export function post(
  { port, tls }: Pick<Door, "port" | "tls">,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  agent: Agent | false,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const where = { host: "127.0.0.1", port, method: "POST", path: "/", headers, agent };
    const sent = (tls === undefined ? request : requestSecurely)({ ...tls, ...where }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks) }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

export class Caller {
  readonly endpoint: Door;
  readonly #codec: Codec;
  readonly #agent: Agent | false;

  /** @param connections kept at most; 0 for a new one with each call */
  constructor(endpoint: Door, codec: Codec, connections: number) {
    this.endpoint = endpoint;
    this.#codec = codec;
    const Kept = endpoint.tls === undefined ? PlainAgent : SecureAgent;
    this.#agent = connections > 0 && new Kept({ keepAlive: true, maxSockets: connections });
  }

  /** @throws with the answer's text unless it is 200 */
  async call<T>(operation: string, input: object): Promise<T> {
    const body = bodyOf(input, this.#codec);
    const { headers } = signed(this.endpoint, operation, body, this.#codec);
    const answer = await post(this.endpoint, headers, body, this.#agent);
    if (answer.status !== 200)
      throw new Error(`${operation} answered ${answer.status}: ${answer.body.toString("latin1", 0, 300)}`);
    if (answer.body.length === 0) return {} as T;
    return (this.#codec === "cbor" ? cbor.decode(answer.body) : JSON.parse(answer.body.toString())) as T;
  }

  /** A record's data as this caller's codec carries it, there and back. */
  data(bytes: Buffer): string | Buffer {
    return this.#codec === "json" ? bytes.toString("base64") : bytes;
  }

  bytes(data: string | Uint8Array): Uint8Array {
    return typeof data === "string" ? Buffer.from(data, "base64") : data;
  }

  close(): void {
    if (this.#agent !== false) this.#agent.destroy();
  }
}

/** Over h2c, or HTTP/2 by ALPN. Never tries again by itself: what is sent twice is stored twice. */
export function sdkClient({ port, key, tls }: Door): KinesisClient {
  return new KinesisClient({
    endpoint: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    ...(tls !== undefined && { requestHandler: new NodeHttp2Handler({ nodeHttp2ConnectOptions: tls }) }),
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
  });
}
