/** Large pages, as a real thread writes them. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { giveAnswer } from "../../../../../gateway/api/answers/answer-memory.ts";
import { PageThread, type PageThreadOptions } from "../../../../../gateway/api/kinesis/pages/page-thread.ts";
import { RecordPage } from "../../../../../gateway/api/kinesis/pages/record-page.ts";
import { type Codec, cborCodec, jsonCodec } from "../../../../../gateway/api/kinesis/wire/codec.ts";
import { encodeInOrder } from "../../../../../protocol/record-batch.ts";
import { silentLog } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { collectGarbage } from "../../../../support/held-memory.ts";
import { eventually } from "../../../../support/program.ts";

const shard = { createdMs: 1_763_000_000_123, index: 17 };
const members = { NextShardIterator: "next", MillisBehindLatest: 12 };
const GIVE_UP_MS = 60_000;

function threadOf(t: TestContext, options: Partial<PageThreadOptions> = {}): PageThread {
  const thread = new PageThread({ log: silentLog, metrics: new Metrics(), ...options });
  t.after(() => thread.close());
  return thread;
}

/** @param bytes of the data of each record, and a few more */
function pageOf(count: number, bytes: number, batches = 7): RecordPage {
  const page = new RecordPage(shard, 0, { records: 10_000, dataBytes: 10_485_760 });
  for (let first = 0, i = 0; i < batches; i++) {
    const end = Math.floor((count * (i + 1)) / batches);
    const records = Array.from({ length: end - first }, (_, j) => ({
      key: `key-${(first + j) % 50}${(first + j) % 9 === 0 ? '"é' : ""}`,
      timeUs: j,
      payload: Buffer.alloc(bytes + ((first + j) % 5), `${first + j} `),
    }));
    // The log's memory gives batches of all alignments.
    const batch = Buffer.concat([Buffer.alloc(i), encodeInOrder(records)]).subarray(i);
    page.add({ first, count: records.length, arrivalMs: 1_763_000_000_000 + i, runs: [], batch });
    first = end;
  }
  return page;
}

/** The first pages are the caller's, as the thread is not there yet. */
async function written(thread: PageThread, page: RecordPage, codec: Codec = jsonCodec): Promise<Buffer> {
  return eventually("the thread writes it", GIVE_UP_MS, async () => thread.write(page.job(codec, members)));
}

test("pages of the thread are, byte for byte, those of the API's own", async (t) => {
  const thread = threadOf(t);
  for (const codec of [jsonCodec, cborCodec]) {
    for (const page of [
      pageOf(10_000, 200),
      pageOf(10_000, 0),
      pageOf(1_000, 10_000),
      pageOf(3, 1),
      pageOf(30, 340_000),
    ]) {
      const answer = await written(thread, page, codec);
      assert.ok(answer.equals(page.encode(codec, members)), `${codec.name} of ${page.count}`);
      giveAnswer(answer);
    }
  }
});

test("a page in hand stays as it is until it is given back, whatever is written beside it", async (t) => {
  const thread = threadOf(t);
  const pages = Array.from({ length: 5 }, (_, i) => pageOf(2_000 + i, 100 + 50 * i));
  const held: Buffer[] = [];
  for (const page of pages.slice(0, 3)) held.push(await written(thread, page));
  assert.equal(await thread.write(pages[3]!.job(jsonCodec, members)), undefined, "no memory is idle");
  giveAnswer(held[1]!);
  giveAnswer(held[1]!);
  const fourth = await thread.write(pages[3]!.job(jsonCodec, members));
  assert.ok(fourth?.equals(pages[3]!.encode(jsonCodec, members)));
  assert.equal(
    await thread.write(pages[4]!.job(jsonCodec, members)),
    undefined,
    "given back twice, lent once",
  );
  for (const i of [0, 2]) assert.ok(held[i]!.equals(pages[i]!.encode(jsonCodec, members)));
});

test("memory that nobody gives back is collected, and others take its place", async (t) => {
  const thread = threadOf(t);
  const page = pageOf(1_000, 10);
  const lost: WeakRef<ArrayBufferLike>[] = [];
  for (let i = 0; i < 3; i++) lost.push(new WeakRef((await written(thread, page)).buffer));
  await eventually("it is collected", GIVE_UP_MS, async () => {
    collectGarbage();
    return lost.every((one) => one.deref() === undefined) || undefined;
  });
  const held: Buffer[] = [];
  for (let i = 0; i < 3; i++) held.push(await written(thread, page));
  for (const answer of held) assert.ok(answer.equals(page.encode(jsonCodec, members)));
});

test("what was lost takes no memory, however much it was", async (t) => {
  const thread = threadOf(t);
  const page = pageOf(10_000, 1_000);
  const lose = async (): Promise<WeakRef<ArrayBufferLike>> =>
    new WeakRef((await written(thread, page)).buffer);
  const held = await written(thread, page);
  const beforeBytes = process.memoryUsage.rss();
  for (let i = 0; i < 15; i++) {
    const lost = [await lose(), await lose()];
    await eventually("they are collected", GIVE_UP_MS, async () => {
      collectGarbage();
      return lost.every((one) => one.deref() === undefined) || undefined;
    });
  }
  const bytes = process.memoryUsage.rss() - beforeBytes;
  assert.ok(bytes < 12 * 32 * 1_048_576, `${bytes} bytes more, of 30 pages in memory of 32 MiB`);
  assert.ok(held.equals(page.encode(jsonCodec, members)));
});

test("a page that does not fit is left to the caller, and harms no other", async (t) => {
  const thread = threadOf(t);
  const page = pageOf(1_000, 10);
  giveAnswer(await written(thread, page));
  const records = Array.from({ length: 9_000 }, (_, i) => ({
    key: "\u0001".repeat(256) + i,
    timeUs: 0,
    payload: Buffer.alloc(900),
  }));
  const wide = new RecordPage(shard, 0, { records: 10_000, dataBytes: 10_485_760 });
  wide.add({ first: 0, count: 9_000, arrivalMs: 1, runs: [], batch: encodeInOrder(records) });
  assert.equal(wide.count, 9_000);
  assert.equal(await thread.write(wide.job(jsonCodec, members)), undefined);
  // Of a batch of 13 MB the page is one record.
  const few = new RecordPage(shard, 0, { records: 1, dataBytes: 10_485_760 });
  const large = Array.from({ length: 13 }, () => ({ key: "k", timeUs: 0, payload: Buffer.alloc(1_048_576) }));
  few.add({ first: 0, count: 13, arrivalMs: 1, runs: [], batch: encodeInOrder(large) });
  assert.equal(await thread.write(few.job(jsonCodec, members)), undefined);
  assert.ok((await written(thread, page)).equals(page.encode(jsonCodec, members)));
});

test("a thread that rests ends when all memory is back, and comes again", async (t) => {
  const thread = threadOf(t, { idleMs: 500 });
  const page = pageOf(1_000, 10);
  const held = await written(thread, page);
  const at = performance.now();
  // A pause is what is tried: it may not end within it.
  await eventually("it has rested", GIVE_UP_MS, async () => performance.now() - at > 1_500 || undefined);
  assert.ok(thread.isRunning, "while its memory is lent it stays");
  assert.ok(held.equals(page.encode(jsonCodec, members)));
  giveAnswer(held);
  await eventually("it has ended", GIVE_UP_MS, async () => !thread.isRunning || undefined);
  assert.ok((await written(thread, page)).equals(page.encode(jsonCodec, members)));
});

test("where the thread dies, pages under way and all that come are the caller's, and it is said once", async (t) => {
  const said: string[] = [];
  const log = { ...silentLog, warn: (_: object, message: string) => said.push(message) } as typeof silentLog;
  const program = new URL(
    `data:text/javascript,
    import { parentPort } from "node:worker_threads";
    parentPort.on("message", ({ make }) => {
      if (make === undefined) throw new Error("broken");
      parentPort.postMessage({ made: make, memory: new SharedArrayBuffer(40 * 1048576), outAt: 13 * 1048576 });
    });`,
  );
  const thread = threadOf(t, { log, program });
  const page = pageOf(1_000, 10);
  const underWay = await eventually("the thread is there", GIVE_UP_MS, async () =>
    thread.write(page.job(jsonCodec, members)) === undefined ? undefined : "asked",
  );
  assert.equal(underWay, "asked");
  await eventually("it is said", GIVE_UP_MS, async () => said.length > 0 || undefined);
  assert.equal(thread.write(page.job(jsonCodec, members)), undefined);
  assert.deepEqual(said, ["the thread that writes pages ended: they are written without it"]);
});

test("where no thread can be started, pages are the caller's, and it is said once", (t) => {
  const said: unknown[] = [];
  const log = { ...silentLog, warn: (...what: unknown[]) => said.push(what) } as typeof silentLog;
  // As of a machine that has no room for another one, it throws.
  const thread = threadOf(t, { log, program: new URL("http://localhost/no-file.js") });
  const page = pageOf(1_000, 10);
  for (let i = 0; i < 3; i++) assert.equal(thread.write(page.job(jsonCodec, members)), undefined);
  assert.equal(said.length, 1);
});

test("a closed thread leaves what is under way to its callers", async (t) => {
  const thread = threadOf(t);
  const page = pageOf(10_000, 200);
  giveAnswer(await written(thread, page));
  const underWay = thread.write(page.job(jsonCodec, members));
  thread.close();
  assert.equal(await underWay, undefined);
  assert.equal(thread.write(page.job(jsonCodec, members)), undefined);
});
