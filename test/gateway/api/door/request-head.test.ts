/** Node's parser is the oracle: a head that the lane takes is one that Node reads in the same way. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { readRequestHead } from "../../../../gateway/api/door/request-head.ts";
import { canonicalHeaders } from "../../../../gateway/api/signature/sigv4-canonical.ts";

interface Heard {
  readonly method: string;
  readonly url: string;
  readonly version: string;
  readonly rawHeaders: readonly string[];
  readonly body: string;
}

/** What Node makes of the bytes: its first request, or what it answers to what is none. */
async function nodeReader(t: TestContext): Promise<(bytes: Buffer) => Promise<Heard | string>> {
  let heard: ((heard: Heard) => void) | undefined;
  const server = createServer((request, reply) => {
    const chunks: Buffer[] = [];
    request.on("error", () => {});
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      heard?.({
        method: request.method!,
        url: request.url!,
        version: request.httpVersion,
        rawHeaders: request.rawHeaders,
        body: Buffer.concat(chunks).toString("latin1"),
      });
      reply.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => new Promise((resolve) => server.close(resolve)));
  const { port } = server.address() as AddressInfo;
  return (bytes) =>
    new Promise((resolve) => {
      heard = resolve;
      const socket = connect(port, "127.0.0.1");
      let answer = "";
      socket.on("data", (chunk) => {
        answer += chunk.toString("latin1");
      });
      socket.on("error", () => {});
      socket.on("close", () => resolve(answer));
      socket.end(bytes);
    });
}

const call = (...lines: string[]): Buffer =>
  Buffer.from(`POST / HTTP/1.1\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`, "latin1");

const USUAL = [
  "Host: gateway:8080",
  "Content-Type: application/x-amz-json-1.1",
  "X-Amz-Target: Kinesis_20131202.PutRecord",
  "X-Amz-Date: 20261121T155000Z",
  "Authorization: AWS4-HMAC-SHA256 Credential=A/20261121/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00",
  "Content-Length: 12",
];

test("a head as SDKs write it is read whole", () => {
  const bytes = call(...USUAL, "Connection: keep-alive");
  const head = readRequestHead(Buffer.concat([bytes, Buffer.from("and a body")]));
  assert.ok(head !== undefined);
  assert.equal(head.bytes, bytes.length);
  assert.equal(head.host, "gateway:8080");
  assert.equal(head.contentType, "application/x-amz-json-1.1");
  assert.equal(head.target, "Kinesis_20131202.PutRecord");
  assert.equal(head.contentLength, 12);
  assert.deepEqual([...head.headers].slice(0, 2), [
    ["host", "gateway:8080"],
    ["content-type", "application/x-amz-json-1.1"],
  ]);
  assert.equal(head.headers.size, 7);
});

test("what is unusual is left to Node", () => {
  const without = (name: string): string[] => USUAL.filter((line) => !line.startsWith(name));
  const unusual: Record<string, Buffer> = {
    "cut off": call(...USUAL).subarray(0, -1),
    "no host": call(...without("Host")),
    "no target": call(...without("X-Amz-Target")),
    "no length": call(...without("Content-Length")),
    "two lengths": call(...USUAL, "content-length: 12"),
    "two hosts": call(...USUAL, "host: other"),
    "a length that is no number": call(...without("Content-Length"), "Content-Length: 1e3"),
    "a signed length": call(...without("Content-Length"), "Content-Length: +12"),
    "two lengths in one": call(...without("Content-Length"), "Content-Length: 12, 12"),
    "a huge length": call(...without("Content-Length"), "Content-Length: 99999999999"),
    chunked: call(...USUAL, "Transfer-Encoding: chunked"),
    expect: call(...USUAL, "Expect: 100-continue"),
    upgrade: call(...USUAL, "Upgrade: websocket"),
    close: call(...USUAL, "Connection: close"),
    "a space before the colon": call(...USUAL, "X-Odd : 1"),
    folded: call(...USUAL, "X-Odd: 1", " 2"),
    "no name": call(...USUAL, ": 1"),
    "a bare line feed": Buffer.from(
      call(...USUAL)
        .toString("latin1")
        .replace("\r\nX-Amz-Date", "\nX-Amz-Date"),
    ),
    "a bare carriage return": call(...USUAL, "X-Odd: 1\r2"),
    "the same name twice": call(...USUAL, "X-Odd: 1", "x-odd: 2"),
    "two spaces": call(...USUAL, "X-Odd: 1  2"),
    "a zero byte": call(...USUAL, "X-Odd: \0"),
    "beyond ASCII": call(...USUAL, "X-Odd: \xe9"),
    "another version": Buffer.from(
      call(...USUAL)
        .toString("latin1")
        .replace("1.1", "1.0"),
    ),
    "another path": Buffer.from(
      call(...USUAL)
        .toString("latin1")
        .replace("/ ", "/? "),
    ),
    "too many": call(...USUAL, ...Array.from({ length: 60 }, (_, i) => `x-${i}: 1`)),
    "too long": call(...USUAL, `x-long: ${"a".repeat(5_000)}`),
    nothing: Buffer.alloc(0),
  };
  for (const [name, bytes] of Object.entries(unusual)) assert.equal(readRequestHead(bytes), undefined, name);
});

test("whatever is taken, Node reads in the same way", async (t) => {
  const read = await nodeReader(t);
  const odd = fc.oneof(
    fc.constantFrom(
      "x-a:1",
      "X-A: \t 1 \t",
      "x-a:",
      "x-a: ,;=\"'()[]{}<>@\\/?",
      "connection: Keep-Alive",
      "connection: keep-alive, x-a",
      "keep-alive: timeout=5",
      "content-length:  0012 ",
      "Content-Length: 12\t",
      "Content-Length: 1 2",
      "transfer-encoding: identity",
      "trailer: x",
      "te: trailers",
      "x-a: 1\n",
      "x-a: 1\rb",
      " folded",
      "x y: 1",
      "x-é: 1",
      "X_y.z~!#$%&'*+^`|: 1",
      "host:",
    ),
    fc.string({ unit: "binary-ascii", maxLength: 30 }),
    fc
      .tuple(fc.string({ unit: "binary-ascii", maxLength: 8 }), fc.string({ maxLength: 20 }))
      .map((pair) => pair.join(": ")),
  );
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray(USUAL, { minLength: 4 }),
      fc.array(odd, { maxLength: 3 }),
      fc.nat({ max: 5 }),
      fc.option(fc.tuple(fc.nat(600), fc.integer({ min: 0, max: 255 })), { freq: 3 }),
      async (usual, more, at, change) => {
        const head = call(...usual.slice(0, at), ...more, ...usual.slice(at));
        if (change !== null && change[0] < head.length) head[change[0]] = change[1];
        const ours = readRequestHead(head);
        if (ours === undefined) return;
        taken++;
        const body = "x".repeat(ours.contentLength);
        const theirs = await read(Buffer.concat([head.subarray(0, ours.bytes), Buffer.from(body)]));
        assert.ok(
          typeof theirs === "object",
          `Node answers ${String(theirs)} to ${JSON.stringify(head.toString("latin1"))}`,
        );
        assert.equal(theirs.method, ours.method);
        assert.equal(theirs.url, ours.path);
        assert.equal(theirs.version, "1.1");
        assert.equal(theirs.body, body);
        assert.deepEqual(ours.headers, canonicalHeaders(theirs.rawHeaders));
      },
    ),
    { numRuns: 1_500 },
  );
  assert.ok(taken > 50, `only ${taken} were taken`);
  t.diagnostic(`${taken} taken`);
});
