/** Kinesis requests as whole HTTP messages, signed once and sent many times: a signature holds for five minutes. */
import { createHash, createHmac, randomBytes } from "node:crypto";
import { encode } from "cbor-x";

export interface Endpoint {
  readonly port: number;
  readonly key: { readonly id: string; readonly secret: string };
}

export interface SignedCall {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export type Codec = "json" | "cbor";

const REGION = "us-east-1";
/** As many partition keys as a middling fleet has devices. */
const KEYS = 1_000;

/** @param nth tells this body from others, so that not all carry the same keys */
export function putRecordsBody(
  stream: string,
  records: number,
  recordBytes: number,
  nth: number,
  codec: Codec = "json",
): Buffer {
  const list = Array.from({ length: records }, (_, i) => {
    const data = reading(recordBytes);
    return {
      Data: codec === "json" ? data.toString("base64") : data,
      PartitionKey: `device-${(nth * records + i) % KEYS}`,
    };
  });
  const input = { StreamName: stream, Records: list };
  return bodyOf(input, codec);
}

export function bodyOf(input: object, codec: Codec): Buffer {
  return codec === "json" ? Buffer.from(JSON.stringify(input)) : Buffer.from(encode(input));
}

/** A JSON reading of exactly so many bytes, which does not compress to nothing. */
export function reading(bytes: number): Buffer {
  const head = `{"sensor":"t-1","time":${Date.now()},"value":21.5,"id":"`;
  const body = randomBytes(Math.ceil(Math.max(0, bytes - head.length - 2) / 2)).toString("hex");
  return Buffer.from(`${head}${body}`.slice(0, bytes - 2).concat('"}'));
}

/** Signature Version 4 by header. */
export function signed(
  endpoint: Endpoint,
  operation: string,
  body: Buffer,
  codec: Codec = "json",
): SignedCall {
  const amzDate = `${new Date().toISOString().replace(/[-:]|\.\d+/g, "")}`;
  const date = amzDate.slice(0, 8);
  const headers: Record<string, string> = {
    "content-type": codec === "json" ? "application/x-amz-json-1.1" : "application/x-amz-cbor-1.1",
    host: `127.0.0.1:${endpoint.port}`,
    "x-amz-date": amzDate,
    "x-amz-target": `Kinesis_20131202.${operation}`,
  };
  const names = Object.keys(headers).join(";");
  const canonical = [
    "POST",
    "/",
    "",
    ...Object.entries(headers).map(([name, value]) => `${name}:${value}`),
    "",
    names,
    sha256(body),
  ].join("\n");
  const scope = `${date}/${REGION}/kinesis/aws4_request`;
  let key: Buffer = Buffer.from(`AWS4${endpoint.key.secret}`);
  for (const step of [date, REGION, "kinesis", "aws4_request"])
    key = createHmac("sha256", key).update(step).digest();
  const signature = createHmac("sha256", key)
    .update(["AWS4-HMAC-SHA256", amzDate, scope, sha256(canonical)].join("\n"))
    .digest("hex");
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${endpoint.key.id}/${scope}, SignedHeaders=${names}, Signature=${signature}`;
  return { headers, body };
}

/** The message as it goes over an HTTP/1.1 connection. */
export function wire({ headers, body }: SignedCall): Buffer {
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([
    Buffer.from(`POST / HTTP/1.1\r\n${head.join("")}content-length: ${body.length}\r\n\r\n`),
    body,
  ]);
}

/** One call, for setting up. @throws with the answer's text unless it is 200 */
export async function call<T>(endpoint: Endpoint, operation: string, input: object): Promise<T> {
  const { headers, body } = signed(endpoint, operation, Buffer.from(JSON.stringify(input)));
  const answer = await fetch(`http://127.0.0.1:${endpoint.port}/`, {
    method: "POST",
    headers,
    body: new Uint8Array(body),
  });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${operation} answered ${answer.status}: ${text.slice(0, 300)}`);
  return (text === "" ? {} : JSON.parse(text)) as T;
}

function sha256(data: string | Buffer): string {
  return createHash("sha256").update(data).digest("hex");
}
