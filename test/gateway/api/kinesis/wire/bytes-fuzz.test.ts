/** Bodies, targets and tokens as bytes that somebody bent: always an answer of AWS's shape, never a fault of ours. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { TokenSealer } from "../../../../../gateway/api/kinesis/sealed-token.ts";
import { cborHead, encodeCbor } from "../../../../../gateway/api/kinesis/wire/cbor.ts";
import { type Fixture, KEY, openFixture, PUT_ONLY } from "../../api-fixture.ts";
import { AWS_CBOR, AWS_JSON, assertAwsShaped, Complaints, HostileCaller } from "../../hostile-calls.ts";
import { sign } from "../../sign.ts";

const STREAM = "s";
const BOUND = { numRuns: 400 };
const complaints = new Complaints();
let fixture: Fixture;
let caller: HostileCaller;

test.before(async () => {
  fixture = await openFixture({ log: complaints });
  caller = new HostileCaller(fixture.port);
  await fixture.streams.createStream({ name: STREAM, shards: 3, retentionHours: 24 });
  for (const name of ["one", "two"]) await fixture.streams.registerReader(STREAM, name, {});
});
test.after(async () => {
  caller.close();
  await fixture.close();
});
test.afterEach(async () => {
  assert.deepEqual(complaints.errors, [], "nothing failed inside");
  assertAwsShaped(await caller.signed("ListStreams", "{}"), "the next call is served");
});

const put = (data: (bytes: Buffer) => unknown): object => ({
  StreamName: STREAM,
  Records: ["a", "ä", "k".repeat(256)].map((PartitionKey, i) => ({
    Data: data(Buffer.alloc(i * 40, i)),
    PartitionKey,
    ...(i === 1 && { ExplicitHashKey: "340282366920938463463374607431768211455" }),
  })),
});
const iterate = { StreamName: STREAM, ShardId: "0", ShardIteratorType: "AT_TIMESTAMP", Timestamp: 1.5e9 };

/** What happens to bytes on a bad line, or in bad hands. */
const bend = fc.oneof(
  fc.record({ do: fc.constant("flip" as const), at: fc.nat(), bit: fc.nat(7) }),
  fc.record({ do: fc.constant("set" as const), at: fc.nat(), byte: fc.nat(255) }),
  fc.record({ do: fc.constant("cut" as const), at: fc.nat() }),
  fc.record({ do: fc.constant("insert" as const), at: fc.nat(), bytes: fc.uint8Array({ maxLength: 9 }) }),
  fc.record({ do: fc.constant("repeat" as const), at: fc.nat(), length: fc.nat(40) }),
);

function bent(
  bytes: Buffer,
  bends: readonly (typeof bend extends fc.Arbitrary<infer B> ? B : never)[],
): Buffer {
  let out = Buffer.from(bytes);
  for (const one of bends) {
    const at = one.at % (out.length + 1);
    if (one.do === "flip" && at < out.length) out[at]! ^= 1 << one.bit;
    if (one.do === "set" && at < out.length) out[at] = one.byte;
    if (one.do === "cut") out = out.subarray(0, at);
    if (one.do === "insert") out = Buffer.concat([out.subarray(0, at), one.bytes, out.subarray(at)]);
    if (one.do === "repeat") out = Buffer.concat([out.subarray(0, at + one.length), out.subarray(at)]);
  }
  return out;
}

for (const [form, type, bodies] of [
  [
    "JSON",
    AWS_JSON,
    [JSON.stringify(put((bytes) => bytes.toString("base64"))), JSON.stringify(iterate)].map((s) =>
      Buffer.from(s),
    ),
  ],
  ["CBOR", AWS_CBOR, [encodeCbor(put((bytes) => bytes)), encodeCbor(iterate)]],
] as const) {
  test(`${form} that was bent on its way is taken or refused`, async () => {
    const outcomes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.nat(1), fc.array(bend, { minLength: 1, maxLength: 4 }), async (which, bends) => {
        const body = bent(bodies[which]!, bends);
        const answer = await caller.signed(which === 0 ? "PutRecords" : "GetShardIterator", body, type);
        outcomes.add(assertAwsShaped(answer, `${body.toString("latin1")}`) ?? "taken");
      }),
      BOUND,
    );
    assert.ok(outcomes.has("taken") && outcomes.has("SerializationException"), [...outcomes].join(" "));
  });
}

test("CBOR of any bytes, depth, length and number of keys is refused before it costs anything", async () => {
  const head = (major: number, info: number, ...rest: number[]): Buffer =>
    Buffer.of((major << 5) | info, ...rest);
  const huge = fc
    .tuple(fc.integer({ min: 2, max: 6 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
    .map(([major, length]) => {
      const bytes = head(major, 27, 0, 0, 0, 0, 0, 0, 0, 0);
      bytes.writeBigUInt64BE(length, 1);
      return Buffer.concat([bytes, Buffer.from("abc")]);
    });
  const deep = fc
    .tuple(
      fc.integer({ min: 1, max: 100_000 }),
      fc.constantFrom(head(4, 1), head(4, 31), head(5, 31), head(6, 1)),
    )
    .map(([depth, one]) => Buffer.alloc(depth, one));
  const doubled = fc
    .array(fc.constantFrom("StreamName", "Limit", "__proto__"), { maxLength: 6 })
    .map((names) =>
      Buffer.concat([
        cborHead(5, names.length),
        ...names.map((name) => Buffer.concat([encodeCbor(name), encodeCbor(STREAM)])),
      ]),
    );
  const chunked = fc
    .array(fc.uint8Array({ maxLength: 6 }), { maxLength: 5 })
    .map((chunks) =>
      Buffer.concat([
        head(5, 31),
        head(3, 31),
        ...chunks.map((chunk) => Buffer.from(chunk)),
        Buffer.of(0xff, 0xff),
      ]),
    );
  const any = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
  const inMap = fc
    .oneof(huge, deep, any)
    .map((value) => Buffer.concat([head(5, 1), encodeCbor("Records"), value]));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("PutRecords", "GetRecords", "ListStreams", "SubscribeToShard", "TagResource"),
      fc.oneof(huge, deep, doubled, chunked, any, inMap),
      async (operation, body) => {
        const answer = await caller.signed(operation, body, AWS_CBOR);
        assertAwsShaped(answer, `${operation} ${body.subarray(0, 80).toString("hex")}`);
      },
    ),
    BOUND,
  );
});

test("bodies of megabytes of nothing but structure are refused in good time", async () => {
  const bytes = 15 * 1_048_576;
  const bodies: [string, string, Buffer][] = [
    ["PutRecords", AWS_JSON, Buffer.from(`{"Records":[${"{},".repeat(bytes / 3)}{}]}`)],
    ["PutRecords", AWS_JSON, Buffer.from(`{"Records":[${"null,".repeat(bytes / 5)}null]}`)],
    ["ListStreams", AWS_JSON, Buffer.alloc(bytes, "[")],
    ["ListStreams", AWS_JSON, Buffer.from('{"a":'.repeat(bytes / 5))],
    ["RemoveTagsFromStream", AWS_JSON, Buffer.from(`{"TagKeys":[${'"",'.repeat(bytes / 3)}""]}`)],
    [
      "AddTagsToStream",
      AWS_JSON,
      Buffer.from(`{"Tags":{${Array.from({ length: 200_000 }, (_, i) => `"${i}":""`)}}}`),
    ],
    [
      "PutRecords",
      AWS_CBOR,
      Buffer.concat([encodeCbor({}).fill(0xa1), encodeCbor("Records"), Buffer.alloc(bytes, 0x81)]),
    ],
    ["PutRecords", AWS_CBOR, Buffer.concat([Buffer.of(0x9f), Buffer.alloc(bytes, 0xa0)])],
    ["PutRecords", AWS_CBOR, Buffer.concat([Buffer.of(0x5f), Buffer.alloc(bytes, 0x40)])],
  ];
  for (const [operation, type, body] of bodies) {
    const before = process.cpuUsage();
    const answer = await caller.signed(operation, body, type);
    const told = `${operation} ${body.subarray(0, 20).toString("latin1")}`;
    assert.notEqual(assertAwsShaped(answer, told), undefined, told);
    const { user, system } = process.cpuUsage(before);
    const tookMs = (user + system) / 1_000;
    // A second at most on the machine that this was written on, for us and the client. What goes over all that
    // came before at each of five million values takes hours.
    assert.ok(tookMs < 20_000, `${told}: ${Math.round(tookMs)} ms`);
  }
});

test("any X-Amz-Target is an operation of ours or no operation", async () => {
  const legal = fc.string({
    unit: fc
      .integer({ min: 0x20, max: 0xff })
      .filter((c) => c !== 0x7f)
      .map((c) => String.fromCharCode(c)),
    maxLength: 60,
  });
  const target = fc.oneof(
    legal,
    legal.map((text) => `Kinesis_20131202.${text}`),
    fc.constantFrom("", "Kinesis_20131202.", "kinesis_20131202.ListStreams", "Kinesis_20131202.liststreams"),
    fc.constantFrom(
      "Kinesis_20131202.ListStreams.x",
      "Kinesis_20131202.toString",
      "Kinesis_20131202.__proto__",
    ),
    fc.constantFrom(
      "Firehose_20150804.PutRecord",
      "Kinesis_20131202.PutRecords, Kinesis_20131202.PutRecords",
    ),
  );
  await fc.assert(
    fc.asyncProperty(target, async (text) => {
      const headers = await sign({
        headers: { host: `127.0.0.1:${fixture.port}`, "content-type": AWS_JSON },
        body: "{}",
      });
      const answer = await caller.post({ ...headers, "x-amz-target": text }, "{}");
      assert.equal(assertAwsShaped(answer, text), "UnknownOperationException");
    }),
    BOUND,
  );
});

test("an iterator or a token that was altered, cut, or made by another key leads nowhere", async () => {
  const ask = async (operation: string, body: object): Promise<Record<string, unknown>> =>
    JSON.parse((await caller.signed(operation, JSON.stringify(body))).body.toString());
  const ARN = `arn:aws:kinesis:us-east-1:000000000000:stream/${STREAM}`;
  for (const name of ["a", "b"]) {
    await fixture.streams.createStream({ name, shards: 1, retentionHours: 24 });
  }
  const iterator = String((await ask("GetShardIterator", iterate)).ShardIterator);
  const tokens = {
    ListShards: String((await ask("ListShards", { StreamName: STREAM, MaxResults: 1 })).NextToken),
    ListStreams: String((await ask("ListStreams", { Limit: 1 })).NextToken),
    ListStreamConsumers: String(
      (await ask("ListStreamConsumers", { StreamARN: ARN, MaxResults: 1 })).NextToken,
    ),
  };
  const calls: [string, (token: string) => object, string][] = [
    ["GetRecords", (ShardIterator) => ({ ShardIterator }), iterator],
    ["ListShards", (NextToken) => ({ NextToken }), tokens.ListShards],
    ["ListStreams", (NextToken) => ({ NextToken }), tokens.ListStreams],
    ["ListStreamConsumers", (NextToken) => ({ NextToken, StreamARN: ARN }), tokens.ListStreamConsumers],
  ];
  for (const [operation, body, good] of calls) {
    assert.equal(
      assertAwsShaped(await caller.signed(operation, JSON.stringify(body(good))), operation),
      undefined,
    );
  }
  const forged = fc
    .jsonValue({ maxDepth: 2 })
    .map((content) => new TokenSealer([KEY.secret], "shard iterator").seal(content, Date.now()));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...calls),
      fc.oneof(
        fc.array(bend, { minLength: 1, maxLength: 3 }),
        forged,
        fc.string({ unit: "binary", maxLength: 600 }),
        fc.constantFrom(iterator, ...Object.values(tokens)),
      ),
      async ([operation, body, good], token) => {
        const text = typeof token === "string" ? token : bent(Buffer.from(good), token).toString("latin1");
        if (text === good) return;
        const type = assertAwsShaped(await caller.signed(operation, JSON.stringify(body(text))), operation);
        assert.match(type ?? "taken", /^(InvalidArgument|Validation)Exception$/, `${operation} ${text}`);
      },
    ),
    BOUND,
  );
  // Of the gateway's own keys only all together seal what it opens.
  const whole = new TokenSealer([PUT_ONLY.secret, KEY.secret], "shard iterator");
  const stream = fixture.streams.describe(STREAM);
  const own = whole.seal([STREAM, stream.streamId, 0, 0], Date.now());
  assert.equal((await caller.signed("GetRecords", JSON.stringify({ ShardIterator: own }))).status, 200);
});
