/**
 * The two forms in which Kinesis speaks: AWS JSON 1.1, and CBOR, which SDKs for Java send unless told
 * otherwise. Both carry the same members. In JSON bytes are base64 and times seconds since 1970; in
 * CBOR bytes are byte strings and times milliseconds under tag 1.
 */
import { isUtf8 } from "node:buffer";
import { AWS_JSON, AwsError } from "../../aws-error.ts";
import { CborError, decodeCbor, encodeCbor } from "./cbor.ts";
import { isTooBulky } from "./json-bulk.ts";

export { Timestamp } from "./cbor.ts";

export interface Codec {
  readonly name: "json" | "cbor";
  readonly contentType: string;
  /** @throws AwsError SerializationException when it is no structure */
  decode(body: Buffer): object;
  encode(answer: object): string | Buffer;
}

export const AWS_CBOR = "application/x-amz-cbor-1.1";

export const jsonCodec: Codec = {
  name: "json",
  contentType: AWS_JSON,
  decode(body) {
    if (isTooBulky(body)) throw new AwsError("SerializationException", "The body has too many values.");
    // RFC 8259 §8.1. Read leniently, two keys with different wrong bytes would become the same key.
    if (!isUtf8(body)) throw new AwsError("SerializationException", "The body is not UTF-8.");
    let parsed: unknown;
    try {
      parsed = JSON.parse(body.toString("utf8"));
    } catch (error) {
      throw new AwsError("SerializationException", "The body is not JSON.", 400, error);
    }
    if (typeof parsed !== "object" || parsed === null) {
      throw new AwsError("SerializationException", "The body is not a JSON object.");
    }
    return parsed;
  },
  encode: (answer) => JSON.stringify(answer),
};

export const cborCodec: Codec = {
  name: "cbor",
  contentType: AWS_CBOR,
  decode(body) {
    let parsed: unknown;
    try {
      parsed = decodeCbor(body);
    } catch (error) {
      if (!(error instanceof CborError)) throw error;
      throw new AwsError("SerializationException", `The body is not CBOR: ${error.message}.`, 400, error);
    }
    if (typeof parsed !== "object" || parsed === null || Buffer.isBuffer(parsed)) {
      throw new AwsError("SerializationException", "The body is not a CBOR map.");
    }
    return parsed;
  },
  encode: (answer) => encodeCbor(answer),
};

/** What does not say that it is CBOR is taken for JSON. */
export function codecOf(contentType: string): Codec {
  if (contentType === AWS_JSON) return jsonCodec;
  return contentType.split(";")[0]!.trim().toLowerCase() === AWS_CBOR ? cborCodec : jsonCodec;
}
