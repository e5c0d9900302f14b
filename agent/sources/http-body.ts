/** The body of a request, within its limits: what kind it is, read whole, decompressed. */
import type { IncomingMessage } from "node:http";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import type { BatchKind } from "./decode/json-batch.ts";

const gunzipAsync = promisify(gunzip);

const KINDS: Readonly<Record<string, BatchKind>> = {
  "": "json",
  "application/json": "json",
  "application/senml+json": "senml",
  "application/x-ndjson": "lines",
  "application/ndjson": "lines",
  "application/jsonl": "lines",
  "application/json-lines": "lines",
};

/** The request is answered with `status`; nothing was stored. */
export class RequestRefusal extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** @throws RequestRefusal 415 */
export function bodyKind(request: IncomingMessage): BatchKind {
  const type = (request.headers["content-type"] ?? "").split(";")[0]!.trim().toLowerCase();
  const kind = Object.hasOwn(KINDS, type) ? KINDS[type] : undefined;
  if (kind !== undefined) return kind;
  throw new RequestRefusal(415, "send application/json, application/x-ndjson or application/senml+json");
}

/** @throws RequestRefusal 400, 413 or 415 */
export async function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const tooLarge = (): RequestRefusal =>
    new RequestRefusal(413, `at most ${maxBytes} bytes`, { connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge();
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  const encoding = (request.headers["content-encoding"] ?? "identity").toLowerCase();
  if (encoding === "identity") return body;
  if (encoding !== "gzip") throw new RequestRefusal(415, "content-encoding may be gzip");
  try {
    return await gunzipAsync(body, { maxOutputLength: maxBytes });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") throw tooLarge();
    throw new RequestRefusal(400, "the body is not gzip");
  }
}
