/** The same call by the lane and by Node's HTTP server gets the same answer. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import test from "node:test";
import { encodeCbor } from "../../../../gateway/api/kinesis/wire/cbor.ts";
import { KEY, openFixture, PUT_ONLY } from "../api-fixture.ts";
import { sign } from "../sign.ts";

interface Answer {
  readonly status: string;
  readonly headers: readonly string[];
  readonly body: string;
}

/** Sends one request and reads its answer. */
function ask(port: number, bytes: Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
    let heard = "";
    socket.on("error", reject);
    socket.on("data", (chunk) => {
      heard += chunk.toString("latin1");
      const end = heard.indexOf("\r\n\r\n");
      const length = Number(/content-length: (\d+)/i.exec(heard)?.[1]);
      if (end < 0 || heard.length < end + 4 + length) return;
      socket.destroy();
      const [status, ...headers] = heard.slice(0, end).split("\r\n");
      resolve({ status: status!, headers, body: heard.slice(end + 4) });
    });
  });
}

/** What differs from call to call is left out. */
function comparable({ status, headers, body }: Answer): Answer {
  return {
    status,
    headers: headers.filter((line) => !/^(date|x-amzn-requestid):/i.test(line)).sort(),
    body: body
      .replace(/\d{56,57}/g, "N")
      .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "ID")
      .replace(/\d{8}T\d{6}Z|\d+\.\d+/g, "T"),
  };
}

test("every call is answered alike by the lane and by Node's HTTP server", async (t) => {
  const { port, streams, close } = await openFixture();
  t.after(close);
  await streams.createStream({ name: "s", shards: 2, retentionHours: 24 });
  await streams.createStream({ name: "aws", shards: 1, retentionHours: 24, limits: "aws" });
  const json = "application/x-amz-json-1.1";
  const cbor = "application/x-amz-cbor-1.1";
  const record = { Data: "aGVsbG8=", PartitionKey: "k" };
  const calls: Array<
    [name: string, operation: string, body: string | Buffer, type?: string, key?: typeof KEY]
  > = [
    ["a record", "PutRecord", JSON.stringify({ StreamName: "s", ...record })],
    [
      "a record with all its members",
      "PutRecord",
      JSON.stringify({ StreamName: "aws", ...record, ExplicitHashKey: "7", SequenceNumberForOrdering: "0" }),
    ],
    [
      "a record in CBOR",
      "PutRecord",
      encodeCbor({ StreamName: "s", Data: Buffer.from("hello"), PartitionKey: "k" }),
      cbor,
    ],
    ["records", "PutRecords", JSON.stringify({ StreamName: "s", Records: [record, record] })],
    [
      "records in CBOR",
      "PutRecords",
      encodeCbor({ StreamName: "s", Records: [{ Data: Buffer.from("hello"), PartitionKey: "k" }] }),
      cbor,
    ],
    ["a list", "ListStreams", "{}"],
    ["a description", "DescribeStreamSummary", JSON.stringify({ StreamName: "s" })],
    ["no answer's body", "AddTagsToStream", JSON.stringify({ StreamName: "s", Tags: { ä: "ü" } })],
    ["tags beyond ASCII", "ListTagsForStream", JSON.stringify({ StreamName: "s" })],
    ["no such stream", "PutRecord", JSON.stringify({ StreamName: "none", ...record })],
    ["no stream's name", "PutRecord", JSON.stringify(record)],
    ["a broken name", "PutRecord", JSON.stringify({ StreamName: "ä b", ...record })],
    ["broken base64", "PutRecord", JSON.stringify({ StreamName: "s", Data: "aGVsbG9=", PartitionKey: "k" })],
    [
      "a key that is too long",
      "PutRecord",
      JSON.stringify({ StreamName: "s", Data: "", PartitionKey: "k".repeat(257) }),
    ],
    ["no JSON", "PutRecord", "{"],
    ["no CBOR", "PutRecord", Buffer.from([0xff]), cbor],
    ["what a key may not do", "ListStreams", "{}", json, PUT_ONLY],
    ["what is not offered", "CreateChannel", "{}"],
    ["what nobody knows", "Nothing", "{}"],
    ["an unknown key", "ListStreams", "{}", json, { ...KEY, id: "AKIAUNKNOWN" }],
    ["a wrong signature", "ListStreams", "{}", json, { ...KEY, secret: "another secret 12345" }],
  ];
  for (const [name, operation, body, type = json, key = KEY] of calls) {
    const headers = await sign({
      headers: {
        host: `127.0.0.1:${port}`,
        "x-amz-target": `Kinesis_20131202.${operation}`,
        "content-type": type,
      },
      body,
      key,
    });
    const request = (more: string): Buffer => {
      const lines = Object.entries(headers).filter(([header]) => header !== "content-length");
      const head = lines.map(([header, value]) => `${header}: ${value}\r\n`).join("");
      return Buffer.concat([
        Buffer.from(
          `POST / HTTP/1.1\r\n${head}${more}content-length: ${Buffer.byteLength(body)}\r\n\r\n`,
          "latin1",
        ),
        Buffer.from(body as string),
      ]);
    };
    const short = comparable(await ask(port, request("")));
    const plain = comparable(await ask(port, request("te: trailers\r\n")));
    assert.deepEqual(short, plain, name);
  }
});
