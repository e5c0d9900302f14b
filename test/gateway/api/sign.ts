/** Requests signed by the AWS SDK's own signer, for tests that need to write the request by hand. */
import { createHash, createHmac } from "node:crypto";
import { SignatureV4 } from "@smithy/signature-v4";
import type { Checksum, HttpRequest, SourceData } from "@smithy/types";
import { KEY } from "./api-fixture.ts";

/** The hash that the signer asks for, by node:crypto. */
class NodeSha256 implements Checksum {
  #hash;
  readonly #secret: SourceData | undefined;

  constructor(secret?: SourceData) {
    this.#secret = secret;
    this.#hash = this.#fresh();
  }

  update(data: Uint8Array): void {
    this.#hash.update(data);
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }

  reset(): void {
    this.#hash = this.#fresh();
  }

  #fresh() {
    if (this.#secret === undefined) return createHash("sha256");
    const { secret } = { secret: this.#secret };
    return createHmac("sha256", typeof secret === "string" ? secret : Buffer.from(secret as Uint8Array));
  }
}

export interface ToSign {
  readonly method?: string;
  readonly path?: string;
  readonly query?: Record<string, string | string[]>;
  readonly headers: Record<string, string>;
  readonly body: string | Uint8Array;
  readonly key?: { readonly id: string; readonly secret: string };
  readonly region?: string;
  readonly service?: string;
  readonly date?: Date;
  /** The signer adds x-amz-content-sha256 unless told not to. */
  readonly applyChecksum?: boolean;
}

export async function sign(request: ToSign): Promise<Record<string, string>> {
  const signed = await signerOf(request).sign(unsigned(request), {
    signingDate: request.date ?? new Date(),
  });
  return signed.headers;
}

/** The query of a presigned address; `x-amz-*` headers are signed as headers. */
export async function presign(
  request: ToSign,
  expiresIn: number,
): Promise<Record<string, string | string[]>> {
  const signed = await signerOf(request).presign(unsigned(request), {
    signingDate: request.date ?? new Date(),
    expiresIn,
    unhoistableHeaders: new Set(Object.keys(request.headers)),
  });
  return signed.query as Record<string, string | string[]>;
}

function signerOf(request: ToSign): SignatureV4 {
  const key = request.key ?? KEY;
  return new SignatureV4({
    service: request.service ?? "kinesis",
    region: request.region ?? "us-east-1",
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret },
    sha256: NodeSha256,
    applyChecksum: request.applyChecksum ?? true,
  });
}

function unsigned(request: ToSign): HttpRequest {
  return {
    method: request.method ?? "POST",
    protocol: "http:",
    hostname: "localhost",
    path: request.path ?? "/",
    query: request.query ?? {},
    headers: request.headers,
    body: request.body,
  };
}

/** A signed call by fetch, with the body as it is given. */
export async function call(
  origin: string,
  target: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
  key?: ToSign["key"],
  date?: Date,
): Promise<{ status: number; type: string; message: string; json: unknown; headers: Headers }> {
  const signed = await sign({
    headers: {
      host: new URL(origin).host,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": `Kinesis_20131202.${target}`,
      ...headers,
    },
    body,
    ...(key && { key }),
    ...(date && { date }),
  });
  delete signed.host;
  const answer = await fetch(`${origin}/`, { method: "POST", headers: signed, body: body as string });
  const text = await answer.text();
  const json = (text === "" ? {} : JSON.parse(text)) as { __type?: string; message?: string };
  return {
    status: answer.status,
    type: json.__type ?? "",
    message: json.message ?? "",
    json,
    headers: answer.headers,
  };
}
