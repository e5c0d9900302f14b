import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  formatRequest,
  formatResponse,
  frameHead,
  MAX_BODY_BYTES,
  MAX_HEADERS,
  MAX_LINE_BYTES,
  MalformedMessageError,
  type RtspMessage,
  RtspParser,
} from "../../../protocol/rtsp/messages.ts";

function parse(...chunks: Buffer[]): RtspMessage[] {
  const messages: RtspMessage[] = [];
  const parser = new RtspParser((message) => messages.push(message));
  for (const chunk of chunks) parser.push(chunk);
  return messages;
}

const word = fc.stringMatching(/^[a-z][a-z0-9-]{0,12}$/);
const headers = fc.dictionary(
  word.filter((name) => name !== "content-length"),
  fc.stringMatching(/^[!-~]([ -~]{0,30}[!-~])?$/),
  { maxKeys: 8, noNullPrototype: true },
);
const body = fc.string({ maxLength: 300 });

const message = fc.oneof(
  fc.record({ headers, body }).map(({ headers, body }) => ({
    bytes: formatRequest("ANNOUNCE", "rtsp://host/yard", headers, body),
    is: ["ANNOUNCE", "rtsp://host/yard", headers, body],
  })),
  fc
    .record({ headers, body, status: fc.integer({ min: 100, max: 599 }) })
    .map(({ headers, body, status }) => ({
      bytes: formatResponse(status, "Some Reason", headers, body),
      is: [status, "Some Reason", headers, body],
    })),
  fc
    .record({ channel: fc.nat(255), payload: fc.uint8Array({ maxLength: 600 }) })
    .map(({ channel, payload }) => ({
      bytes: Buffer.concat([frameHead(channel, payload.length), payload]),
      is: [channel, Buffer.from(payload).toString("hex")],
    })),
);

function facts(parsed: RtspMessage): unknown[] {
  if (parsed.kind === "frame") return [parsed.channel, parsed.payload.toString("hex")];
  const { headers, body } = parsed;
  const others = Object.fromEntries([...headers].filter(([name]) => name !== "content-length"));
  const start = parsed.kind === "request" ? [parsed.method, parsed.url] : [parsed.status, parsed.reason];
  return [...start, others, body.toString()];
}

test("whatever the network cuts, the same messages come out", () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 50 });
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 8 }), cuts, (messages, cuts) => {
      const stream = Buffer.concat(messages.map(({ bytes }) => bytes));
      const chunks: Buffer[] = [];
      for (let at = 0, i = 0; at < stream.length; i++) {
        const end = at + cuts[i % cuts.length]!;
        chunks.push(stream.subarray(at, end));
        at = end;
      }
      assert.deepEqual(
        parse(...chunks).map(facts),
        messages.map(({ is }) => is),
      );
      assert.deepEqual(
        parse(stream).map(facts),
        messages.map(({ is }) => is),
      );
    }),
  );
});

test("hostile bytes end in MalformedMessageError or in messages, never otherwise", () => {
  const pieces = fc.oneof(
    fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
    fc
      .constantFrom(
        "$",
        "\r\n",
        "RTSP/1.0 200 OK\r\n",
        "OPTIONS * RTSP/1.0\r\n",
        "Content-Length: 5\r\n",
        "a: b\r\n",
        " x\r\n",
      )
      .map((text) => Buffer.from(text)),
    message.map(({ bytes }) => bytes),
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 20 }), (chunks) => {
      try {
        parse(...chunks);
      } catch (error) {
        assert.ok(error instanceof MalformedMessageError);
      }
    }),
    { numRuns: 500 },
  );
});

test("a packet inside one chunk is a view of it, not a copy", () => {
  const chunk = Buffer.concat([frameHead(2, 3), Buffer.from("abc"), frameHead(3, 0)]);
  const [first, second] = parse(chunk);
  assert.ok(first?.kind === "frame" && second?.kind === "frame");
  assert.equal(first.payload.buffer, chunk.buffer);
  assert.equal(second.payload.length, 0);
});

test("a header given twice is joined, a folded one continued, names are of any case", () => {
  const text =
    "RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest a=1,\r\n b=2\r\nwww-authenticate: Basic\r\n\r\n";
  const [response] = parse(Buffer.from(text));
  assert.ok(response?.kind === "response");
  assert.equal(response.headers.get("www-authenticate"), "Digest a=1, b=2, Basic");
});

test("what is too long or no RTSP is refused before it fills memory", () => {
  const request = (more: string) => Buffer.from(`OPTIONS * RTSP/1.0\r\n${more}`);
  const many = Array.from({ length: MAX_HEADERS + 1 }, (_, i) => `h${i}: x\r\n`).join("");
  for (const [bytes, reason] of [
    [Buffer.alloc(MAX_LINE_BYTES + 1, 0x61), /a line longer/],
    [request(many), /more than 64 headers/],
    [request("same: 0123456789abcdef\r\n".repeat(1_000)), /a value longer/],
    [request(`Content-Length: ${MAX_BODY_BYTES + 1}\r\n\r\n`), /a body of/],
    [request("Content-Length: -5\r\n\r\n"), /is no number/],
    [request("no colon\r\n"), /without a name/],
    [Buffer.from("GET / HTTP/1.1\r\n"), /neither a request/],
  ] as const) {
    assert.throws(() => parse(bytes), reason);
    const parser = new RtspParser(() => undefined);
    assert.throws(() => {
      for (const byte of bytes) parser.push(Buffer.of(byte));
    }, reason);
    assert.throws(() => parser.push(Buffer.from("x")), /follows a malformed one/);
  }
});

test("a stranger's line break does not become a header of ours", () => {
  const bytes = formatResponse(200, "OK", { CSeq: "1\r\nX-Evil: 1" }, "");
  assert.equal(bytes.toString(), "RTSP/1.0 200 OK\r\nCSeq: 1 X-Evil: 1\r\n\r\n");
});
