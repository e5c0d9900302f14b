/**
 * A stream whose shards hold pages of megabytes that differ in every byte, and clients that read them over
 * each way into the gateway: at once, slowly, or not to the end.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import http2 from "node:http2";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { call, sign } from "./sign.ts";

const RECORD_BYTES = 250_000;
/** Of a PutRecords, half of what it may have. */
const PUT_BYTES = 5_000_000;
const RECORDS = Buffer.from('"Records":[');

/** All that a shard holds, as GetRecords gives it. */
export interface LargePage {
  readonly iterator: string;
  /** Of the answer: the array of its records and the end. */
  readonly records: Buffer;
}

/** Of which the first bytes have come; no more is read until it is finished. */
export interface Begun {
  finish(): Promise<Buffer>;
  /** The rest is not wanted. */
  cut(): void;
}

export interface Client {
  begin(page: LargePage): Promise<Begun>;
  close(): void;
}

/** @param recordCounts how many records each shard gets, no more than a page holds */
export async function makeLargePages(
  origin: string,
  recordCounts: readonly number[],
  recordBytes = RECORD_BYTES,
): Promise<readonly LargePage[]> {
  const StreamName = `of-${recordBytes}`;
  const ask = async <T>(target: string, input: object): Promise<T> => {
    const answer = await call(origin, target, JSON.stringify(input));
    assert.equal(answer.status, 200, answer.message);
    return answer.json as T;
  };
  await ask("CreateStream", { StreamName, ShardCount: recordCounts.length });
  const { Shards: shards } = await ask<{
    Shards: readonly { ShardId: string; HashKeyRange: { StartingHashKey: string } }[];
  }>("ListShards", { StreamName });
  const pages: LargePage[] = [];
  for (const [index, count] of recordCounts.entries()) {
    const { ShardId, HashKeyRange } = shards[index]!;
    const data = Array.from({ length: count }, (_, i) => dataOf(index, i, recordBytes));
    const atOnce = Math.min(500, Math.floor(PUT_BYTES / recordBytes));
    for (let at = 0; at < count; at += atOnce) {
      const records = data.slice(at, at + atOnce).map((Data) => ({
        Data,
        PartitionKey: `shard-${index}`,
        ExplicitHashKey: HashKeyRange.StartingHashKey,
      }));
      await ask("PutRecords", { StreamName, Records: records });
    }
    const from = { StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" };
    const { ShardIterator: iterator } = await ask<{ ShardIterator: string }>("GetShardIterator", from);
    const page = await ask<{ Records: readonly { Data: string }[] }>("GetRecords", {
      ShardIterator: iterator,
    });
    assert.deepEqual(
      page.Records.map((record) => record.Data),
      data,
      "alone, it is what was put",
    );
    pages.push({ iterator, records: Buffer.from(`${JSON.stringify(page.Records).slice(1)}}`) });
  }
  return pages;
}

function dataOf(shard: number, index: number, bytes: number): string {
  const hash = createHash("shake256", { outputLength: bytes });
  return hash.update(`${shard}/${index}`).digest("base64");
}

/** @throws AssertionError when the answer is not that page, to the byte */
export function assertIsPage(answer: Buffer, page: LargePage): void {
  const at = answer.indexOf(RECORDS);
  assert.ok(at > 0, "there are records");
  assert.ok(answer.subarray(at + RECORDS.length).equals(page.records), "all bytes are those of the shard");
}

async function signedCall(authority: string, page: LargePage) {
  const body = JSON.stringify({ ShardIterator: page.iterator });
  const headers = await sign({
    headers: {
      host: authority,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.GetRecords",
    },
    body,
  });
  return { headers, body };
}

/** One connection at a time, one call after the other; another connection after one was cut. */
export class Http1Client implements Client {
  readonly #authority: string;
  readonly #connect: () => Socket;
  readonly #header: string;
  #socket: Socket | undefined;

  /**
   * @param ca of a gateway that speaks TLS there
   * @param header a line that stands in each head
   */
  constructor(port: number, ca?: string, header = "") {
    this.#authority = `localhost:${port}`;
    this.#header = header;
    this.#connect = () =>
      ca === undefined ? connect(port, "127.0.0.1") : connectTls({ port, host: "localhost", ca });
  }

  async #request(page: LargePage): Promise<string> {
    const { headers, body } = await signedCall(this.#authority, page);
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return `POST / HTTP/1.1\r\n${lines.join("")}${this.#header}content-length: ${body.length}\r\n\r\n${body}`;
  }

  /** Asks for all of them without reading, as far as the connection takes it, and then reads. @param meanwhile before it reads */
  async pipelined(pages: readonly LargePage[], meanwhile: () => Promise<void>): Promise<readonly Buffer[]> {
    const requests = await Promise.all(pages.map((page) => this.#request(page)));
    this.#socket ??= this.#connect();
    const socket = this.#socket.pause();
    socket.write(requests.join(""));
    await meanwhile();
    let rest = Buffer.alloc(0);
    const answers: Buffer[] = [];
    for await (const chunk of socket) {
      rest = Buffer.concat([rest, chunk as Buffer]);
      for (;;) {
        const headEnd = rest.indexOf("\r\n\r\n") + 4;
        if (headEnd < 4) break;
        const head = rest.toString("latin1", 0, headEnd);
        assert.match(head, /^HTTP\/1\.1 200 OK\r\n/);
        const end = headEnd + Number(/content-length: (\d+)/.exec(head)![1]);
        if (rest.length < end) break;
        answers.push(rest.subarray(headEnd, end));
        rest = rest.subarray(end);
      }
      if (answers.length === pages.length) break;
    }
    return answers;
  }

  async begin(page: LargePage): Promise<Begun> {
    const request = await this.#request(page);
    this.#socket ??= this.#connect();
    const socket = this.#socket;
    socket.write(request);
    const chunks = [await firstChunk(socket)];
    return {
      finish: async () => {
        const head = chunks[0]!.toString("latin1");
        const headEnd = head.indexOf("\r\n\r\n") + 4;
        assert.match(head, /^HTTP\/1\.1 200 OK\r\n/);
        const wholeBytes = headEnd + Number(/content-length: (\d+)/.exec(head)![1]);
        await new Promise<void>((resolve, reject) => {
          let missing = wholeBytes - chunks[0]!.length;
          if (missing === 0) return resolve();
          const onData = (chunk: Buffer): void => {
            chunks.push(chunk);
            missing -= chunk.length;
            if (missing > 0) return;
            socket.removeListener("data", onData);
            socket.removeListener("close", onClose);
            resolve();
          };
          const onClose = (): void => reject(new Error("the connection ended"));
          socket.on("close", onClose);
          socket.on("data", onData).resume();
        });
        return Buffer.concat(chunks).subarray(headEnd);
      },
      cut: () => {
        socket.destroy();
        this.#socket = undefined;
      },
    };
  }

  close(): void {
    this.#socket?.destroy();
  }
}

/** The first bytes that come; the socket is paused then. */
function firstChunk(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.once("data", (chunk: Buffer) => {
      socket.pause();
      socket.removeListener("error", reject);
      resolve(chunk);
    });
    socket.resume();
  });
}

/** Any number of calls at once, over one connection. What is not read stays at the gateway, but for 64 KiB. */
export class Http2Client implements Client {
  readonly #authority: string;
  readonly #session: http2.ClientHttp2Session;
  readonly #path: string;

  /** @param windowBytes so much of an answer leaves the gateway before somebody reads it */
  constructor(port: number, ca?: string, path = "/", windowBytes = 65_535) {
    this.#authority = `localhost:${port}`;
    this.#path = path;
    const scheme = ca === undefined ? "http" : "https";
    const settings = { initialWindowSize: windowBytes };
    this.#session = http2.connect(`${scheme}://${this.#authority}`, {
      settings,
      ...(ca !== undefined && { ca }),
    });
    this.#session.on("error", () => {});
    // The window of the connection is not what holds a call up.
    this.#session.on("connect", () => this.#session.setLocalWindowSize(2 ** 26));
  }

  async begin(page: LargePage): Promise<Begun> {
    const { headers, body } = await signedCall(this.#authority, page);
    const { host: _, ...rest } = headers;
    const stream = this.#session.request({ ":method": "POST", ":path": this.#path, ...rest });
    stream.end(body);
    const status = await new Promise<number>((resolve, reject) => {
      stream.once("error", reject);
      stream.once("response", (heard) => resolve(heard[":status"] ?? 0));
    });
    assert.equal(status, 200);
    return {
      finish: async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of stream) chunks.push(chunk as Buffer);
        return Buffer.concat(chunks);
      },
      cut: () => {
        stream.on("error", () => {});
        stream.close(http2.constants.NGHTTP2_CANCEL);
      },
    };
  }

  close(): void {
    this.#session.destroy();
  }
}
