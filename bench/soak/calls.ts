/** Kinesis calls over HTTP/1.1, in JSON or CBOR, over kept connections or a new one each; and the SDK over h2c. */
import { Agent, request } from "node:http";
import { KinesisClient } from "@aws-sdk/client-kinesis";
import { Decoder } from "cbor-x";
import { bodyOf, type Codec, type Endpoint, signed } from "../load/kinesis-requests.ts";

/** Times come as 64-bit whole numbers. */
const cbor = new Decoder({ useRecords: false, mapsAsObjects: true, int64AsNumber: true } as object);

export interface Answer {
  readonly status: number;
  readonly body: Buffer;
}

/** What is sent as it is, with these headers. */
export function post(
  port: number,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
  agent: Agent | false,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, method: "POST", path: "/", headers, agent }, (answer) => {
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
  readonly endpoint: Endpoint;
  readonly #codec: Codec;
  readonly #agent: Agent | false;

  /** @param connections kept at most; 0 for a new one with each call */
  constructor(endpoint: Endpoint, codec: Codec, connections: number) {
    this.endpoint = endpoint;
    this.#codec = codec;
    this.#agent = connections > 0 && new Agent({ keepAlive: true, maxSockets: connections });
  }

  /** @throws with the answer's text unless it is 200 */
  async call<T>(operation: string, input: object): Promise<T> {
    const body = bodyOf(input, this.#codec);
    const { headers } = signed(this.endpoint, operation, body, this.#codec);
    const answer = await post(this.endpoint.port, headers, body, this.#agent);
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

/** Never tries again by itself: what is sent twice is stored twice. */
export function sdkClient({ port, key }: Endpoint): KinesisClient {
  return new KinesisClient({
    endpoint: `http://127.0.0.1:${port}`,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
  });
}
