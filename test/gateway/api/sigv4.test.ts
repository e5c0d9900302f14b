import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { AwsError } from "../../../gateway/api/aws-error.ts";
import { SignatureVerifier, type SignedRequest } from "../../../gateway/api/sigv4.ts";
import { KEY, PUT_ONLY } from "./api-fixture.ts";
import { sign, type ToSign } from "./sign.ts";

const NOW = new Date("2026-03-04T05:06:07Z");
const clock = { nowUs: () => NOW.getTime() * 1000, monotonicMs: () => 0 };
const verifier = new SignatureVerifier({
  keys: [KEY, PUT_ONLY],
  region: "us-east-1",
  service: "kinesis",
  clock,
});

/** The signed request as it would come out of Node's parser. */
async function arriving(request: ToSign): Promise<SignedRequest> {
  const headers = await sign({ date: NOW, ...request });
  const query = Object.entries(request.query ?? {})
    .flatMap(([name, values]) => [values].flat().map((value) => [name, value] as const))
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .join("&");
  return {
    method: request.method ?? "POST",
    path: request.path ?? "/",
    query,
    rawHeaders: Object.entries(headers).flat(),
    host: "",
  };
}

function refusal(run: () => unknown): string {
  try {
    run();
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof AwsError, String(error));
    assert.ok(!error.message.includes(KEY.secret), "a secret is never told");
    return error.type;
  }
}

const plain: ToSign = {
  headers: {
    host: "gateway:8080",
    "content-type": "application/x-amz-json-1.1",
    "x-amz-target": "Kinesis_20131202.ListStreams",
  },
  body: "{}",
};

test("whatever the SDK's signer signs is accepted, and a changed body is not", async () => {
  const word = fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 12 });
  const token = fc.stringMatching(/^x-[a-z]{1,8}$/);
  const value = fc.stringMatching(/^[\x21-\x7e]([\x20-\x7e]{0,20}[\x21-\x7e])?$/);
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        body: fc.oneof(fc.string(), fc.uint8Array({ maxLength: 200 })),
        method: fc.constantFrom("POST", "GET", "PUT"),
        segments: fc.array(fc.stringMatching(/^[A-Za-z0-9 ._~!$&'()*+,;=:@-]{1,10}$/), { maxLength: 3 }),
        query: fc.dictionary(word, fc.oneof(word, fc.array(word, { minLength: 1, maxLength: 3 })), {
          maxKeys: 4,
        }),
        more: fc.dictionary(token, value, { maxKeys: 4 }),
        applyChecksum: fc.boolean(),
        limited: fc.boolean(),
      }),
      async ({ body, method, segments, query, more, applyChecksum, limited }) => {
        const request = await arriving({
          method,
          path: `/${segments.map(encodeURIComponent).join("/")}`,
          query,
          headers: { ...more, ...plain.headers },
          body,
          applyChecksum,
          key: limited ? PUT_ONLY : KEY,
        });
        const claim = verifier.open(request);
        assert.equal(claim.key, limited ? PUT_ONLY : KEY);
        const bytes = Buffer.from(body as string);
        claim.check(bytes);
        assert.equal(
          refusal(() => claim.check(Buffer.concat([bytes, Buffer.from("x")]))),
          "InvalidSignatureException",
        );
      },
    ),
    { numRuns: 300 },
  );
});

test("a change of any signed part is noticed", async () => {
  const request = await arriving(plain);
  const check = (changed: Partial<SignedRequest>): string =>
    refusal(() => verifier.open({ ...request, ...changed }).check(Buffer.from("{}")));
  const withHeader = (name: string, value: string): Partial<SignedRequest> => ({
    rawHeaders: request.rawHeaders.map((text, i) =>
      i % 2 === 1 && request.rawHeaders[i - 1] === name ? value : text,
    ),
  });
  assert.equal(check({}), "accepted");
  assert.equal(check({ method: "PUT" }), "InvalidSignatureException");
  assert.equal(check({ path: "/other" }), "InvalidSignatureException");
  assert.equal(check({ query: "a=b" }), "InvalidSignatureException");
  assert.equal(check(withHeader("host", "other:8080")), "InvalidSignatureException");
  assert.equal(
    check(withHeader("x-amz-target", "Kinesis_20131202.DeleteStream")),
    "InvalidSignatureException",
  );
  assert.equal(check(withHeader("x-amz-content-sha256", "0".repeat(64))), "InvalidSignatureException");
  const doubled = { rawHeaders: [...request.rawHeaders, "X-Amz-Target", "Kinesis_20131202.DeleteStream"] };
  assert.equal(check(doubled), "InvalidSignatureException");
});

test("a header that decides what is done must be among the signed ones", async () => {
  const { "x-amz-target": target, ...headers } = plain.headers;
  const request = await arriving({ ...plain, headers });
  const added = { ...request, rawHeaders: [...request.rawHeaders, "x-amz-target", target!] };
  assert.equal(
    refusal(() => verifier.open(added)),
    "InvalidSignatureException",
  );
});

test("times, scopes and keys are refused in AWS's names", async () => {
  const of = async (changes: Partial<ToSign>): Promise<string> => {
    const request = await arriving({ ...plain, ...changes });
    return refusal(() => verifier.open(request).check(Buffer.from("{}")));
  };
  const minutes = (count: number): Date => new Date(NOW.getTime() + count * 60_000);
  assert.equal(await of({ date: minutes(-14) }), "accepted");
  assert.equal(await of({ date: minutes(14) }), "accepted");
  assert.equal(await of({ date: minutes(-16) }), "InvalidSignatureException");
  assert.equal(await of({ date: minutes(16) }), "InvalidSignatureException");
  assert.equal(await of({ region: "eu-west-1" }), "InvalidSignatureException");
  assert.equal(await of({ service: "firehose" }), "InvalidSignatureException");
  assert.equal(await of({ key: { id: "AKIANOBODY", secret: "x" } }), "UnrecognizedClientException");
  assert.equal(await of({ key: { id: KEY.id, secret: "x" } }), "InvalidSignatureException");
});

test("an Authorization header that says too little is told what is missing", () => {
  const open = (rawHeaders: string[]): string =>
    refusal(() => verifier.open({ method: "POST", path: "/", query: "", host: "h", rawHeaders }));
  assert.equal(open([]), "MissingAuthenticationTokenException");
  assert.equal(open(["Authorization", ""]), "MissingAuthenticationTokenException");
  assert.equal(open(["Authorization", "X"]), "IncompleteSignatureException");
  const partial = "AWS4-HMAC-SHA256 Credential=a/20260304/us-east-1/kinesis/aws4_request";
  assert.equal(open(["Authorization", partial]), "IncompleteSignatureException");
  const whole = `${partial}, SignedHeaders=host, Signature=00`;
  assert.equal(open(["Authorization", whole]), "IncompleteSignatureException");
  assert.equal(open(["Authorization", whole, "X-Amz-Date", "yesterday"]), "IncompleteSignatureException");
});

test("a body that its sender left unsigned on purpose is accepted as such", async () => {
  const request = await arriving({
    ...plain,
    headers: { ...plain.headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD" },
  });
  verifier.open(request).check(Buffer.from("anything"));
});

test("no header makes the verifier fail in another way than by refusing", () => {
  const text = fc.string({ unit: "binary", maxLength: 300 });
  const shaped = fc
    .tuple(text, text, text)
    .map(([a, b, c]) => `AWS4-HMAC-SHA256 Credential=${a}, SignedHeaders=${b}, Signature=${c}`);
  const known = fc
    .tuple(text, text)
    .map(
      ([names, signature]) =>
        `AWS4-HMAC-SHA256 Credential=${KEY.id}/20260304/us-east-1/kinesis/aws4_request,SignedHeaders=${names},Signature=${signature}`,
    );
  fc.assert(
    fc.property(fc.oneof(text, shaped, known), text, text, (authorization, path, query) => {
      const rawHeaders = ["Authorization", authorization, "X-Amz-Date", "20260304T050607Z", "Host", "h"];
      const run = (): void =>
        verifier.open({ method: "POST", path, query, host: "h", rawHeaders }).check(Buffer.from("{}"));
      assert.notEqual(refusal(run), "accepted");
    }),
    { numRuns: 500 },
  );
});
