import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { AwsError } from "../../../../gateway/api/aws-error.ts";
import { SignatureVerifier, type SignedRequest } from "../../../../gateway/api/signature/sigv4.ts";
import { KEY, PUT_ONLY } from "../api-fixture.ts";
import { presign, sign, type ToSign } from "../sign.ts";

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
  return wired(request, request.query ?? {}, headers);
}

/** The same, with the signature in its query. */
async function arrivingPresigned(request: ToSign, expiresIn: number): Promise<SignedRequest> {
  const query = await presign({ date: NOW, ...request }, expiresIn);
  return wired(request, query, request.headers);
}

function wired(
  request: ToSign,
  query: Record<string, string | string[]>,
  headers: Record<string, string>,
): SignedRequest {
  return {
    method: request.method ?? "POST",
    path: request.path ?? "/",
    query: Object.entries(query)
      .flatMap(([name, values]) => [values].flat().map((value) => [name, value] as const))
      .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
      .join("&"),
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
  // The SDK's signer loses a parameter of this name.
  const name = word.filter((text) => text !== "__proto__");
  const token = fc.stringMatching(/^x-[a-z]{1,8}$/);
  const value = fc.stringMatching(/^[\x21-\x7e]([\x20-\x7e]{0,20}[\x21-\x7e])?$/);
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        body: fc.oneof(fc.string(), fc.uint8Array({ maxLength: 200 })),
        method: fc.constantFrom("POST", "GET", "PUT"),
        segments: fc.array(fc.stringMatching(/^[A-Za-z0-9 ._~!$&'()*+,;=:@-]{1,10}$/), { maxLength: 3 }),
        query: fc.dictionary(name, fc.oneof(word, fc.array(word, { minLength: 1, maxLength: 3 })), {
          maxKeys: 4,
        }),
        more: fc.dictionary(token, value, { maxKeys: 4 }),
        applyChecksum: fc.boolean(),
        limited: fc.boolean(),
        presigned: fc.boolean(),
      }),
      async ({ body, method, segments, query, more, applyChecksum, limited, presigned }) => {
        const signed = presigned ? (one: ToSign) => arrivingPresigned(one, 60) : arriving;
        const request = await signed({
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

test("a sender is known by a head that declares the body's hash, otherwise with the body, kept or not", async () => {
  const body = "{}";
  const declaring = verifier.open(await arriving({ ...plain, body }));
  assert.ok(declaring.isProven);
  assert.equal(
    refusal(() => declaring.check(Buffer.from("{ }"))),
    "InvalidSignatureException",
    "what came is not what was declared",
  );
  const request = await arriving({ ...plain, body, applyChecksum: false });
  const claim = verifier.open(request);
  assert.ok(!claim.isProven);
  claim.check(Buffer.from(body));
  assert.ok(claim.isProven);
  const thrownAway = verifier.open(request);
  for (const piece of ["{", "", "}"]) thrownAway.discard(Buffer.from(piece));
  assert.ok(!thrownAway.isProven);
  thrownAway.checkDiscarded();
  assert.ok(thrownAway.isProven);
  const cutOff = verifier.open(request);
  cutOff.discard(Buffer.from("{"));
  cutOff.checkDiscarded();
  assert.ok(!cutOff.isProven);
  const forged = { ...KEY, secret: "another secret of it" };
  assert.ok(!verifier.open(await arriving({ ...plain, body, key: forged })).isProven);
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
  assert.equal(await of({ date: minutes(-5) }), "accepted");
  assert.equal(await of({ date: minutes(5) }), "accepted");
  assert.equal(await of({ date: minutes(-5.1) }), "InvalidSignatureException");
  assert.equal(await of({ date: minutes(5.1) }), "InvalidSignatureException");
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

test("a body left unsigned on purpose is taken only where that is allowed", async () => {
  const request = await arriving({
    ...plain,
    headers: { ...plain.headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD" },
  });
  assert.equal(
    refusal(() => verifier.open(request).check(Buffer.from("anything"))),
    "InvalidSignatureException",
  );
  const options = { keys: [KEY], region: "us-east-1", service: "kinesis", clock };
  const lenient = new SignatureVerifier({ ...options, unsignedPayload: true });
  lenient.open(request).check(Buffer.from("anything"));
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

/** From AWS's published test suite for signers ("aws-sig-v4-test-suite"): the request, and its signature. */
const VECTORS: readonly (readonly [
  name: string,
  method: string,
  path: string,
  query: string,
  headers: string[],
  body: string,
  signature: string,
])[] = [
  ["get-vanilla", "GET", "/", "", [], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"],
  [
    "get-relative",
    "GET",
    "/example/..",
    "",
    [],
    "",
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
  ],
  ["get-slash", "GET", "//", "", [], "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"],
  [
    "get-slashes",
    "GET",
    "//example//",
    "",
    [],
    "",
    "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
  ],
  [
    "get-space",
    "GET",
    "/example space/",
    "",
    [],
    "",
    "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
  ],
  [
    "get-unreserved",
    "GET",
    "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "",
    [],
    "",
    "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
  ],
  [
    "get-utf8",
    "GET",
    "/\u1234",
    "",
    [],
    "",
    "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
  ],
  [
    "get-vanilla-empty-query-key",
    "GET",
    "/",
    "Param1=value1",
    [],
    "",
    "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
  ],
  [
    "get-vanilla-query-order-key-case",
    "GET",
    "/",
    "Param2=value2&Param1=value1",
    [],
    "",
    "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
  ],
  [
    "get-vanilla-query-unreserved",
    "GET",
    "/",
    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    [],
    "",
    "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
  ],
  [
    "get-header-key-duplicate",
    "GET",
    "/",
    "",
    ["My-Header1", "value2", "My-Header1", "value2", "My-Header1", "value1"],
    "",
    "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
  ],
  [
    "get-header-value-trim",
    "GET",
    "/",
    "",
    ["My-Header1", " value1", "My-Header2", ' "a   b   c"'],
    "",
    "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
  ],
  [
    "post-vanilla",
    "POST",
    "/",
    "",
    [],
    "",
    "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
  ],
  [
    "post-header-key-sort",
    "POST",
    "/",
    "",
    ["My-Header1", "value1"],
    "",
    "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
  ],
  [
    "post-x-www-form-urlencoded",
    "POST",
    "/",
    "",
    ["Content-Type", "application/x-www-form-urlencoded"],
    "Param1=value1",
    "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
  ],
];

for (const [name, method, path, query, more, body, signature] of VECTORS) {
  test(`AWS's example ${name} is accepted, and not with another signature`, () => {
    const AWS_EXAMPLE = { id: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
    const suite = new SignatureVerifier({
      keys: [AWS_EXAMPLE],
      region: "us-east-1",
      service: "service",
      clock: { nowUs: () => Date.parse("2015-08-30T12:36:00Z") * 1000, monotonicMs: () => 0 },
    });
    const headers = ["Host", "example.amazonaws.com", "X-Amz-Date", "20150830T123600Z", ...more];
    const signed = [...new Set(headers.filter((_, i) => i % 2 === 0).map((one) => one.toLowerCase()))].sort();
    const check = (given: string): void => {
      const authorization = `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=${signed.join(";")}, Signature=${given}`;
      const rawHeaders = [...headers, "Authorization", authorization];
      suite.open({ method, path, query, host: "", rawHeaders }).check(Buffer.from(body));
    };
    check(signature);
    for (const wrong of [signature.slice(1), signature.toUpperCase(), `${signature.slice(0, -1)}g`, ""]) {
      assert.notEqual(
        refusal(() => check(wrong)),
        "accepted",
      );
    }
  });
}

test("a presigned address is good until it expires, for a week at most", async () => {
  const of = async (ageSeconds: number, expiresIn: number): Promise<string> => {
    const date = new Date(NOW.getTime() - ageSeconds * 1_000);
    const request = await arrivingPresigned({ ...plain, date }, expiresIn);
    return refusal(() => verifier.open(request).check(Buffer.from("{}")));
  };
  assert.equal(await of(3_600, 3_600), "accepted");
  assert.equal(await of(3_601, 3_600), "InvalidSignatureException");
  assert.equal(await of(604_800, 604_800), "accepted");
  assert.equal(await of(-300, 60), "accepted");
  assert.equal(await of(-301, 60), "InvalidSignatureException");
});

test("a presigned address that says too little, too much or two things is refused", async () => {
  const request = await arrivingPresigned(plain, 60);
  const open = (query: string, rawHeaders = request.rawHeaders): string =>
    refusal(() => verifier.open({ ...request, query, rawHeaders }).check(Buffer.from("{}")));
  assert.equal(open(request.query), "accepted");
  for (const part of ["Algorithm", "Credential", "Date", "SignedHeaders", "Signature"]) {
    const without = request.query.split("&").filter((pair) => !pair.startsWith(`X-Amz-${part}=`));
    const refused = part === "Algorithm" ? "MissingAuthenticationToken" : "IncompleteSignature";
    assert.equal(open(without.join("&")), `${refused}Exception`, part);
    const twice = request.query.split("&").filter((pair) => pair.startsWith(`X-Amz-${part}=`));
    assert.equal(open(`${request.query}&${twice[0]}`), "IncompleteSignatureException", part);
  }
  for (const seconds of ["0", "-1", "604801", "1e3", ""]) {
    const changed = request.query.replace("X-Amz-Expires=60", `X-Amz-Expires=${seconds}`);
    assert.equal(open(changed), "IncompleteSignatureException", seconds);
  }
  assert.equal(open(`${request.query}&more=1`), "InvalidSignatureException");
  const both = ["Authorization", "AWS4-HMAC-SHA256 Credential=a"];
  assert.equal(open(request.query, [...request.rawHeaders, ...both]), "InvalidSignatureException");
  const token = "&X-Amz-Security-Token=abc";
  assert.equal(open(request.query + token), "UnrecognizedClientException");
});

test("an Authorization header that comes twice is refused", async () => {
  const request = await arriving(plain);
  const at = request.rawHeaders.indexOf("authorization");
  const rawHeaders = [...request.rawHeaders, "Authorization", request.rawHeaders[at + 1]!];
  assert.equal(
    refusal(() => verifier.open({ ...request, rawHeaders })),
    "IncompleteSignatureException",
  );
});

test("whoever signed wrongly is told what should have been signed, and when the clocks differ by how much", async () => {
  const message = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      return (error as Error).message;
    }
    return "";
  };
  const request = await arriving(plain);
  const wrong = message(() => verifier.open(request).check(Buffer.from("{ }")));
  assert.match(wrong, /^The request signature we calculated does not match the signature you provided\./);
  assert.match(wrong, /The Canonical String for this request should have been\n'POST\n\/\n\n/);
  assert.match(wrong, /The String-to-Sign should have been\n'AWS4-HMAC-SHA256\n20260304T050607Z\n/);
  const late = await arriving({ ...plain, date: new Date(NOW.getTime() - 360_000) });
  assert.equal(
    message(() => verifier.open(late)),
    "Signature expired: 20260304T050007Z is now earlier than 20260304T050107Z (20260304T050607Z - 5 min.)",
  );
  const early = await arriving({ ...plain, date: new Date(NOW.getTime() + 360_000) });
  assert.equal(
    message(() => verifier.open(early)),
    "Signature not yet current: 20260304T051207Z is still later than 20260304T051107Z (20260304T050607Z + 5 min.)",
  );
});
