import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createPublicKey } from "node:crypto";
import test from "node:test";
import { makeKey, makeSigningRequest } from "../../../agent/identity/signing-request.ts";

test("OpenSSL reads a signing request, and its signature is good", () => {
  for (const device of ["pi-1", "x".repeat(64)]) {
    const key = makeKey();
    const request = makeSigningRequest(key, device);
    const shown = execFileSync(
      "openssl",
      ["req", "-inform", "DER", "-verify", "-noout", "-subject", "-pubkey"],
      { input: request, stdio: ["pipe", "pipe", "pipe"] },
    ).toString();
    assert.match(shown, new RegExp(`CN = ?${device}`));
    const publicKey = createPublicKey(key).export({ type: "spki", format: "pem" }).toString();
    assert.ok(shown.includes(publicKey.trim()));
  }
});
