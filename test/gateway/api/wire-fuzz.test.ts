/** Signatures, bodies and their lengths as no client sends them, over the real port. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import test from "node:test";
import fc from "fast-check";
import { type Fixture, KEY, openFixture, PUT_ONLY } from "./api-fixture.ts";
import { AWS_JSON, assertAwsShaped, Complaints, HostileCaller } from "./hostile-calls.ts";
import { presign, sign } from "./sign.ts";

const BOUND = { numRuns: 300 };
const complaints = new Complaints();
let fixture: Fixture;
let caller: HostileCaller;
let host: string;

test.before(async () => {
  fixture = await openFixture({ log: complaints });
  caller = new HostileCaller(fixture.port);
  host = `127.0.0.1:${fixture.port}`;
});
test.after(async () => {
  caller.close();
  await fixture.close();
});
test.afterEach(async () => {
  assert.deepEqual(complaints.errors, [], "nothing failed inside");
  assertAwsShaped(await caller.signed("ListStreams", "{}"), "the next call is served");
});

const plain = (): Record<string, string> => ({
  host,
  "content-type": AWS_JSON,
  "x-amz-target": "Kinesis_20131202.ListStreams",
});

/** What may stand in a header of HTTP/1.1: RFC 9110 §5.5. */
const legal = fc.string({
  unit: fc
    .integer({ min: 0x20, max: 0xff })
    .filter((code) => code !== 0x7f)
    .map((code) => String.fromCharCode(code)),
  maxLength: 80,
});
const AUTH_ERROR =
  /^(IncompleteSignature|InvalidSignature|MissingAuthenticationToken|UnrecognizedClient)Exception$/;

/** A text with a piece of it replaced. */
const bentText = (text: string): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.nat(text.length),
      fc.nat(20),
      fc.oneof(legal, fc.constantFrom("", ",", "=", "/", ";", " ", "%", "%ff")),
    )
    .map(([at, length, piece]) => text.slice(0, at) + piece + text.slice(at + length));

test("an Authorization header that is not the signer's own is refused in AWS's names", async () => {
  const headers = await sign({ headers: plain(), body: "{}" });
  const good = headers.authorization!;
  const date = headers["x-amz-date"]!;
  const other = await sign({ headers: plain(), body: "{}", key: PUT_ONLY });
  const odd = fc.oneof(
    { weight: 4, arbitrary: bentText(good) },
    legal,
    legal.map((text) => `AWS4-HMAC-SHA256 ${text}`),
    fc.constantFrom(
      "",
      "AWS4-HMAC-SHA256",
      "Basic Og==",
      `${good},`,
      `${good}, ${good}`,
      good.replace(", SignedHeaders", ",/ SignedHeaders"),
      good.replace(KEY.id, PUT_ONLY.id),
    ),
    fc.constantFrom(other.authorization!.replace(PUT_ONLY.id, KEY.id), "AWS4-ECDSA-P256-SHA256 Credential=a"),
  );
  const oddDate = fc.oneof(
    { weight: 3, arbitrary: fc.constant(date) },
    bentText(date),
    legal,
    fc.date({ noInvalidDate: true }).map((when) => when.toISOString().replace(/[-:]|\.\d{3}/g, "")),
    fc.date({ noInvalidDate: true }).map((when) => when.toUTCString()),
    fc.constantFrom("20260230T000000Z", "99999999T999999Z", "", "00000000T000000Z"),
  );
  await fc.assert(
    fc.asyncProperty(odd, oddDate, fc.boolean(), async (authorization, amzDate, plainDate) => {
      // One more comma or space changes nothing of what it says.
      const says = (text: string): string => text.split(/[ ,]+/).filter(Boolean).join();
      if (says(authorization) === says(good) && amzDate.trim() === date) return;
      const { "x-amz-date": _, ...rest } = headers;
      const sent = { ...rest, authorization, [plainDate ? "date" : "x-amz-date"]: amzDate };
      const type = assertAwsShaped(await caller.post(sent, "{}"), `${authorization} ${amzDate}`);
      assert.match(type ?? "taken", AUTH_ERROR, `${authorization} ${amzDate}`);
    }),
    BOUND,
  );
});

test("a presigned query that is not the signer's own is refused in AWS's names", async () => {
  const query = await presign({ headers: plain(), body: "{}" }, 60);
  const encoded = Object.entries(query)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`)
    .join("&");
  const good = (await caller.post(plain(), "{}", `/?${encoded}`)).status;
  assert.equal(good, 200, "the query as it was signed");
  const unencoded = fc.stringMatching(/^[!-"$-~]{0,60}$/);
  const signature = /X-Amz-(Algorithm|Signature)/;
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        bentText(encoded),
        unencoded,
        unencoded.map((text) => `X-Amz-Algorithm=${text}`),
      ),
      async (text) => {
        // What HTTP lets through; the rest is refused by its parser.
        const sent = text.replace(/[^!-"$-~]/g, "%20");
        const answer = await caller.post(plain(), "{}", `/?${sent}`);
        const type = assertAwsShaped(answer, sent);
        const wanted = signature.test(sent) ? AUTH_ERROR : /^MissingAuthenticationTokenException$/;
        if (type !== undefined) assert.match(type, wanted, sent);
        else
          assert.deepEqual(
            [...new URLSearchParams(sent)].sort(),
            [...new URLSearchParams(encoded)].sort(),
            sent,
          );
      },
    ),
    BOUND,
  );
});

/** Everything that comes until the server hangs up, or falls silent. */
function raw(bytes: readonly Buffer[]): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(fixture.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")));
    void (async () => {
      for (const piece of bytes) {
        if (socket.destroyed) return;
        socket.write(piece);
        await new Promise((next) => setImmediate(next));
      }
      // A half-closed connection still gets its answer.
      socket.end();
    })();
  });
}

test("a body in odd chunks, or of another length than it says, harms nobody", async () => {
  const body = '{"Limit":10}';
  const headers = await sign({ headers: plain(), body });
  const head = Object.entries({ ...headers, connection: "close" })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const length = fc.oneof(
    fc.nat(40).map(String),
    fc.constantFrom("-1", "0x0c", "12, 12", "12 ", "1e1", "99999999999999999999", "+12", "", "12;"),
  );
  const size = fc.oneof(
    fc.nat(20).map((count) => count.toString(16)),
    fc.constantFrom("c", "C", "0c", "c;a=b", "ffffffffffffffff", "-1", "", "c ", "g", "0"),
  );
  const chunked = fc
    .array(
      fc.tuple(size, fc.constantFrom(body, body.slice(0, 5), "", "\r\n"), fc.constantFrom("\r\n", "\n", "")),
      {
        maxLength: 4,
      },
    )
    .map(
      (chunks) =>
        `Transfer-Encoding: chunked\r\n\r\n${chunks.map(([n, data, end]) => `${n}\r\n${data}${end}`).join("")}0\r\n\r\n`,
    );
  const counted = length.map((count) => `Content-Length: ${count}\r\n\r\n${body}`);
  const neither = fc.constantFrom(
    `\r\n${body}`,
    `Transfer-Encoding: gzip\r\n\r\n${body}`,
    `Expect: 100-continue\r\n\r\n${body}`,
  );
  const cuts = fc.array(fc.nat(400), { maxLength: 4 });
  const statuses = new Set<string>();
  await fc.assert(
    fc.asyncProperty(fc.oneof(chunked, counted, neither), cuts, async (rest, places) => {
      const bytes = Buffer.from(`POST / HTTP/1.1\r\n${head}${rest}`);
      const at = [0, ...places.map((place) => place % bytes.length).sort((a, b) => a - b), bytes.length];
      const answer = await raw(at.slice(1).map((end, i) => bytes.subarray(at[i], end)));
      // None at all when the body never came to its end.
      for (const [line] of answer.matchAll(/^HTTP\/1\.1 \d+/gm)) statuses.add(line.slice(9));
    }),
    BOUND,
  );
  for (const status of statuses) assert.match(status, /^(100|200|400|413|501)$/, [...statuses].join(" "));
  assert.ok(statuses.has("200") && statuses.has("400"), [...statuses].join(" "));
});

test("a body of another length or content than was signed is not taken", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 50 }),
      fc.uint8Array({ maxLength: 50 }),
      async (signed, sent) => {
        const headers = await sign({ headers: plain(), body: signed });
        const type = assertAwsShaped(await caller.post(headers, Buffer.from(sent)), "exchanged");
        const same = Buffer.from(signed).equals(Buffer.from(sent));
        assert.match(
          type ?? "taken",
          same ? /^(taken|SerializationException)$/ : /^InvalidSignatureException$/,
        );
      },
    ),
    BOUND,
  );
});
