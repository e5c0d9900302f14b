/**
 * Large answers of a real gateway, whose memory is used again: what a client gets is what it asked for, to
 * the byte, however slowly it reads and whatever others do meanwhile.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { answerMemory } from "../../../gateway/api/answers/answer-memory.ts";
import { eventually } from "../../support/program.ts";
import { JoiningRig } from "../identity/joining-rig.ts";
import { KEY, StillClock } from "./api-fixture.ts";
import {
  assertIsPage,
  type Client,
  Http1Client,
  Http2Client,
  type LargePage,
  makeLargePages,
} from "./large-pages.ts";

/** Three answers of 7.3 MB, which take memory of one size, and three of 1.7 MB, which take that of another. */
const RECORD_COUNTS = [22, 22, 22, 5, 5, 5];
/** Three of 11 MB, more than kernels take, that are written by the thread for pages of many records. */
const LONG = { counts: [1_200, 1_200, 1_200], recordBytes: 7_000 };
/** Four of 40 KB, which are lent memory as well, though nobody counts them. */
const SMALL = { counts: [20, 20, 20, 20], recordBytes: 1_500 };
/** What the lanes leave to Node's server; and the same path. */
const UNUSUAL_HEADER = "te: trailers\r\n";
const UNUSUAL_PATH = "/?";
const WIDE_BYTES = 8 * 1_048_576;
const MAX_IDLE_BYTES = 32 * 1_048_576;

interface Opened {
  readonly origin: string;
  readonly pages: readonly LargePage[];
  readonly ways: Readonly<Record<string, () => Client>>;
}

async function open(t: TestContext): Promise<Opened> {
  // A page that takes a second is given as far as it came: none does here, however slow the machine is.
  const clock = new StillClock();
  const rig = await JoiningRig.start(t, "", `accessKeys: [{id: ${KEY.id}, secret: ${KEY.secret}}]`, clock);
  const { http } = rig.gateway.addresses;
  const pages = await makeLargePages(http, RECORD_COUNTS);
  const ca = await readFile(join(rig.dir, "gateway", "identity", "ca-certificate.pem"), "utf8");
  const port = Number(new URL(http).port);
  const https = rig.port("https");
  const kept = (make: () => Client) => (): Client => {
    const client = make();
    t.after(() => client.close());
    return client;
  };
  const ways = {
    "HTTP/1.1": kept(() => new Http1Client(port)),
    "HTTP/1.1 over TLS": kept(() => new Http1Client(https, ca)),
    "HTTP/2": kept(() => new Http2Client(port)),
    "HTTP/2 over TLS": kept(() => new Http2Client(https, ca)),
    "HTTP/1.1, unusual": kept(() => new Http1Client(port, undefined, UNUSUAL_HEADER)),
    "HTTP/1.1 over TLS, unusual": kept(() => new Http1Client(https, ca, UNUSUAL_HEADER)),
    "HTTP/2, unusual": kept(() => new Http2Client(port, undefined, UNUSUAL_PATH)),
  };
  return { origin: http, pages, ways };
}

async function readWhole(client: Client, page: LargePage): Promise<void> {
  assertIsPage(await (await client.begin(page)).finish(), page);
}

/** It is idle when the gateway hears that an answer has gone, which may be a little after its client has it. */
async function someIdle(): Promise<number> {
  await turns(50);
  return await eventually("memory is idle", 60_000, async () => {
    const { idleBytes } = answerMemory;
    return idleBytes >= WIDE_BYTES ? idleBytes : undefined;
  });
}

test("memory of an answer is used again, but not before its client has taken it", async (t) => {
  const { pages, ways } = await open(t);
  const [slow, ...others] = pages.slice(0, 3) as [LargePage, LargePage, LargePage];
  const other = ways["HTTP/1.1"]!();
  for (const [way, connectTo] of Object.entries(ways)) {
    const client = connectTo();
    // So that what follows finds memory, and leaves it as it was.
    await readWhole(other, slow);
    const before = await someIdle();
    const begun = await client.begin(slow);
    // The window of an HTTP/2 stream keeps most of it here; of HTTP/1.1 a kernel may have taken all.
    const isHeld = way.startsWith("HTTP/2");
    if (isHeld) assert.equal(answerMemory.idleBytes, before - WIDE_BYTES, `${way}: lent`);
    for (const page of [...others, ...others]) await readWhole(other, page);
    assertIsPage(await begun.finish(), slow);
    // What the others took one after the other was the same, beside what was held for the slow one.
    await eventually("all of it is idle", 60_000, async () => {
      const more = answerMemory.idleBytes - before;
      return (more >= 0 && more <= WIDE_BYTES) || undefined;
    });
  }
});

test("many clients at once, slow ones and such that cut their answers, get what they asked for", async (t) => {
  const { origin, pages: wide, ways } = await open(t);
  const long = await makeLargePages(origin, LONG.counts, LONG.recordBytes);
  const small = await makeLargePages(origin, SMALL.counts, SMALL.recordBytes);
  const pages = [...wide, ...long, ...small];
  let whole = 0;
  let cut = 0;
  const visit = async (client: Client, seed: number): Promise<void> => {
    let random = seed;
    const next = (below: number): number => {
      random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((random / 2 ** 32) * below);
    };
    for (let i = 0; i < 6; i++) {
      const page = pages[next(pages.length)]!;
      const manner = next(4);
      const begun = await client.begin(page);
      if (manner === 0) {
        begun.cut();
        cut++;
        continue;
      }
      // While it waits, others are answered.
      if (manner === 1) await turns(30);
      assertIsPage(await begun.finish(), page);
      whole++;
    }
  };
  const visits: Promise<void>[] = [];
  for (const connectTo of Object.values(ways)) {
    const first = connectTo();
    for (let i = 0; i < 4; i++) {
      // Calls over HTTP/2 share a connection, in which some are cut and the others go on.
      const isShared = first instanceof Http2Client && i < 3;
      visits.push(visit(isShared ? first : connectTo(), visits.length + 1));
    }
  }
  await Promise.all(visits);
  assert.equal(whole + cut, visits.length * 6);
  assert.ok(whole >= 90 && cut >= 15, `${whole} whole, ${cut} cut`);
  assert.ok((await threadPages(origin)) > 0);
  const { idleBytes } = answerMemory;
  assert.ok(idleBytes > 0 && idleBytes <= MAX_IDLE_BYTES, `${idleBytes} bytes are idle`);
});

test("answers that are small, but lent memory, are what was asked for, however late they are read", async (t) => {
  const { origin, ways } = await open(t);
  const pages = await makeLargePages(origin, SMALL.counts, SMALL.recordBytes);
  const other = ways["HTTP/1.1"]!();
  // They take the memory that the slow one's answers must not have given back.
  const meanwhile = async (): Promise<void> => {
    await turns(100);
    for (let i = 0; i < 30; i++) await readWhole(other, pages[3]!);
  };
  const asked = Array.from({ length: 300 }, (_, i) => pages[i % 3]!);
  for (const [way, connectTo] of Object.entries(ways)) {
    const client = connectTo();
    if (!(client instanceof Http1Client)) continue;
    // More than kernels take.
    const answers = await client.pipelined(asked, meanwhile);
    assert.equal(answers.length, asked.length, way);
    for (const [i, answer] of answers.entries()) assertIsPage(answer, asked[i]!);
  }
  const port = Number(new URL(origin).port);
  for (const path of ["/", UNUSUAL_PATH]) {
    const client = new Http2Client(port, undefined, path, 1_024);
    t.after(() => client.close());
    const begun = await Promise.all(asked.slice(0, 30).map((page) => client.begin(page)));
    await meanwhile();
    for (const [i, each] of begun.entries()) assertIsPage(await each.finish(), asked[i]!);
  }
  await eventually("their memory is idle", 60_000, async () => answerMemory.idleBytes >= 65_536 || undefined);
});

test("a connection over HTTP/2 lives on, however many of its large answers wait or were cut", async (t) => {
  const { pages, ways } = await open(t);
  const client = ways["HTTP/2"]!();
  const waiting = await Promise.all([0, 1, 2].map((i) => client.begin(pages[i]!)));
  for (let i = 0; i < 12; i++) (await client.begin(pages[i % 3]!)).cut();
  await readWhole(client, pages[3]!);
  for (const [i, begun] of waiting.entries()) assertIsPage(await begun.finish(), pages[i]!);
});

test("memory comes back from answers that are cut, in whatever way", async (t) => {
  const { pages, ways } = await open(t);
  const page = pages[0]!;
  const whole = ways["HTTP/1.1"]!();
  for (const [way, connectTo] of Object.entries(ways)) {
    for (const what of ["call", "connection"]) {
      await readWhole(whole, page);
      const before = await someIdle();
      const client = connectTo();
      const begun = await client.begin(page);
      if (what === "call") begun.cut();
      else client.close();
      // What was lost would never be idle again.
      await eventually(`${way}: it is back from a ${what}`, 60_000, async () => {
        return answerMemory.idleBytes >= before || undefined;
      });
    }
  }
});

test("the thread's memory comes back from answers that are cut", async (t) => {
  const { origin, ways } = await open(t);
  const [page] = await makeLargePages(origin, LONG.counts.slice(0, 1), LONG.recordBytes);
  for (const connectTo of Object.values(ways)) {
    // More than the thread has memory for.
    for (let i = 0; i < 8; i++) {
      const client = connectTo();
      await client.begin(page!);
      client.close();
    }
    const client = connectTo();
    await eventually("the thread writes a page again", 60_000, async () => {
      const before = await threadPages(origin);
      await readWhole(client, page!);
      return (await threadPages(origin)) > before || undefined;
    });
  }
});

async function threadPages(origin: string): Promise<number> {
  const metrics = await (await fetch(`${origin}/metrics`)).text();
  return Number(/^headwater_kinesis_thread_pages_total (\d+)/m.exec(metrics)?.[1] ?? 0);
}

/** Of the event loop. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
