/**
 * The SHA-256 of a large body, made by one of libuv's threads: of a PutRecords of 500 it is a fifth of the
 * work, all of which the main thread would have to do itself. The plain way is `sha256` of sigv4-keys.ts.
 */
import { webcrypto } from "node:crypto";

/** For less than this, handing it over costs as much as it saves. */
export const DIGESTED_ELSEWHERE_BYTES = 65_536;

/**
 * @param bytes must stay as they are until it resolves
 * @returns in hex; undefined where it cannot be made so, and is to be made the plain way
 */
export function digestElsewhere(bytes: Buffer): Promise<string | undefined> {
  return webcrypto.subtle.digest("SHA-256", bytes).then(
    (digest) => Buffer.from(digest).toString("hex"),
    () => undefined,
  );
}
