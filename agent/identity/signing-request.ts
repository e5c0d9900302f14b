/**
 * A key made on this device, and the request to have it certified: PKCS #10 (RFC 2986) in DER, of a
 * P-256 key, without attributes. The gateway gives the name, so that the subject is a formality.
 *
 * It is written by hand because this is all that an agent needs of X.509; its test has OpenSSL read it.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";

/** X.690 §8.1.2, §8.14: the tags that a request is made of. */
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OBJECT_IDENTIFIER = 0x06;
const UTF8_STRING = 0x0c;
const SEQUENCE = 0x30;
const SET = 0x31;
const CONTEXT_0 = 0xa0;
/** 2.5.4.3 and 1.2.840.10045.4.3.2. */
const COMMON_NAME = Buffer.from("550403", "hex");
const ECDSA_WITH_SHA256 = Buffer.from("2a8648ce3d040302", "hex");

/** PEM of a new P-256 key. */
export function makeKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}

export function makeSigningRequest(keyPem: string, device: string): Buffer {
  const key = createPrivateKey(keyPem);
  const publicKey = createPublicKey(key).export({ type: "spki", format: "der" });
  const name = der(
    SEQUENCE,
    der(SET, der(SEQUENCE, der(OBJECT_IDENTIFIER, COMMON_NAME), der(UTF8_STRING, Buffer.from(device)))),
  );
  const info = der(SEQUENCE, der(INTEGER, Buffer.of(0)), name, publicKey, der(CONTEXT_0));
  const signature = sign("sha256", info, key);
  return der(
    SEQUENCE,
    info,
    der(SEQUENCE, der(OBJECT_IDENTIFIER, ECDSA_WITH_SHA256)),
    // X.690 §8.6.2.2: the first byte counts unused bits.
    der(BIT_STRING, Buffer.of(0), signature),
  );
}

/** X.690 §8.1.3: tag, length, contents; all of it here is shorter than 64 KiB. */
function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const bytes = contents.reduce((sum, part) => sum + part.length, 0);
  const length = bytes < 0x80 ? [bytes] : bytes < 0x100 ? [0x81, bytes] : [0x82, bytes >> 8, bytes & 0xff];
  return Buffer.concat([Buffer.of(tag, ...length), ...contents]);
}
