/** Requests that are dated by HTTP's own Date header, as signers without X-Amz-Date do. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import test from "node:test";
import fc from "fast-check";
import { AwsError } from "../../../gateway/api/aws-error.ts";
import { SignatureVerifier } from "../../../gateway/api/signature/sigv4.ts";
import { sha256 } from "../../../gateway/api/signature/sigv4-keys.ts";
import { KEY } from "./api-fixture.ts";

const NOW = new Date("2026-03-04T05:06:07Z");
const verifier = new SignatureVerifier({
  keys: [KEY],
  region: "us-east-1",
  service: "kinesis",
  clock: { nowUs: () => NOW.getTime() * 1000, monotonicMs: () => 0 },
});

/** Signed by the book, step by step, with the time as the specification has it in the string to sign. */
function check(date: string, signedAs: string): string {
  const scope = `${signedAs.slice(0, 8)}/us-east-1/kinesis/aws4_request`;
  const canonical = `POST\n/\n\ndate:${date}\nhost:gateway\n\ndate;host\n${sha256("{}", "hex")}`;
  let key: Buffer = Buffer.from(`AWS4${KEY.secret}`);
  for (const step of scope.split("/")) key = createHmac("sha256", key).update(step).digest();
  const toSign = `AWS4-HMAC-SHA256\n${signedAs}\n${scope}\n${sha256(canonical, "hex")}`;
  const signature = createHmac("sha256", key).update(toSign).digest("hex");
  const authorization = `AWS4-HMAC-SHA256 Credential=${KEY.id}/${scope}, SignedHeaders=date;host, Signature=${signature}`;
  const rawHeaders = ["Date", date, "Host", "gateway", "Authorization", authorization];
  try {
    verifier.open({ method: "POST", path: "/", query: "", host: "", rawHeaders }).check(Buffer.from("{}"));
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof AwsError, String(error));
    return error.type;
  }
}

test("a Date header counts in either form when there is no X-Amz-Date", () => {
  assert.equal(check("20260304T050607Z", "20260304T050607Z"), "accepted");
  assert.equal(check("Wed, 04 Mar 2026 05:06:07 GMT", "20260304T050607Z"), "accepted");
  assert.equal(check("Wed, 04 Mar 2026 05:10:07 GMT", "20260304T051007Z"), "accepted");
});

test("a Date header outside the window, or signed as another time, is refused", () => {
  assert.equal(check("Wed, 04 Mar 2026 05:00:07 GMT", "20260304T050007Z"), "InvalidSignatureException");
  assert.equal(check("Wed, 04 Mar 2026 05:06:07 GMT", "20260304T050608Z"), "InvalidSignatureException");
});

test("what only looks like a date is none", () => {
  // The wrong day of the week, a day that is not, another zone, and the forms that RFC 9110 calls obsolete.
  for (const date of [
    "Thu, 04 Mar 2026 05:06:07 GMT",
    "Wed, 32 Mar 2026 05:06:07 GMT",
    "Wed, 04 Mar 2026 05:06:07 UTC",
    "Wed, 04 Mar 2026 05:06:07 +01",
    "Wed Mar  4 05:06:07 2026",
    "Wednesday, 04-Mar-26 05:06:07 GMT",
  ]) {
    assert.equal(check(date, "20260304T050607Z"), "IncompleteSignatureException", date);
  }
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ minLength: 29, maxLength: 29 })), (date) => {
      assert.notEqual(check(date, "20260304T050607Z"), "accepted");
    }),
  );
});
