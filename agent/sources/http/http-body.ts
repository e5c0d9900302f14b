/** The body of a request, within its limits: what kind it is, read whole, decompressed. */
import type { IncomingMessage } from "node:http";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import type { BatchKind } from "../decode/json-batch.ts";
import type { BodyRoom } from "./body-room.ts";

const gunzipAsync = promisify(gunzip);
export const RETRY_AFTER_SECONDS = 5;

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

/** @throws RequestRefusal 400, 413, 415 or 429 */
export async function readBody(request: IncomingMessage, maxBytes: number, room: BodyRoom): Promise<Buffer> {
  const tooLarge = (): RequestRefusal =>
    new RequestRefusal(413, `at most ${maxBytes} bytes`, { connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge();
  const body = await gather(request, maxBytes, room, tooLarge);
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

/** By events: to leave an iterator early would end the connection before it has its answer. */
function gather(
  request: IncomingMessage,
  maxBytes: number,
  room: BodyRoom,
  tooLarge: () => RequestRefusal,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const end = (error?: Error): void => {
      place.leave();
      request.off("data", take).off("end", whole).off("error", end).off("close", gone);
      // What is still to come is read into nothing; an error of it is of no interest.
      request.on("error", () => {}).resume();
      if (error === undefined) resolve(Buffer.concat(chunks));
      else reject(error);
    };
    const place = room.enter(() => end(slow()));
    const take = (chunk: Buffer): void => {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes > maxBytes) end(tooLarge());
      else if (!place.take(chunk.length)) end(slow());
    };
    const whole = (): void => end();
    const gone = (): void => end(new Error("the client went before its body was whole"));
    request.on("data", take).once("end", whole).once("error", end).once("close", gone);
  });
}

const slow = (): RequestRefusal => busy("too many requests at once", { connection: "close" });

/** Asking again later may help. */
export function busy(message: string, headers: Readonly<Record<string, string>> = {}): RequestRefusal {
  return new RequestRefusal(429, message, { ...headers, "retry-after": String(RETRY_AFTER_SECONDS) });
}
