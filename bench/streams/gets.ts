/**
 * GetRecords from the beginning of a stream, beside kinesalite and redis. The same pages are read again
 * and again, so that all of them have them in memory.
 */
import { runLoad } from "../load/load.ts";
import { fillRedis, startKinesalite, startRedis } from "../peers/peers.ts";
import { BATCH, beside, noteLoad, own, RECORD_BYTES, ratio, type StreamsBench, WARM_MS } from "./part.ts";
import { inTurns, middle, middleRatio } from "./turns.ts";

const PAGE = 10_000;
const PAGES = 8;
/** More than a store keeps of what was read: these come from the system's page cache, each time. */
const REPLAY_PAGES = 40;
/** kinesalite needs long for a large page, and does not get faster by more of them. */
const PEER_PAGES = 2;

export async function gets(bench: StreamsBench): Promise<void> {
  const { say, bars, dir } = bench;
  say(`GetRecords of ${PAGE} × ${RECORD_BYTES} bytes, 2 connections`);
  const fill = {
    kind: "put-records",
    stream: "pages",
    records: BATCH,
    recordBytes: RECORD_BYTES,
    connections: 4,
    window: 1,
    warmMs: 0,
  } as const;
  const load = {
    kind: "get-records",
    stream: "pages",
    records: PAGE,
    pages: PAGES,
    connections: 2,
    window: 1,
    warmMs: WARM_MS,
  } as const;
  for (let filled = 0; filled < PAGE * REPLAY_PAGES; ) {
    const some = await own(bench, "filling", { ...fill, measureMs: 1_000 });
    if (some === undefined) break;
    filled += some.requests * BATCH;
  }
  const kinesalite = await beside(
    bench,
    "kinesalite",
    () => startKinesalite(bench.peersFolder, dir),
    async (peer) => {
      const there = { port: peer.port, endpoint: peer.endpoint };
      for (let filled = 0; filled < PAGE * PEER_PAGES; ) {
        const { requests } = await runLoad({ ...fill, ...there, measureMs: 2_000 }, peer.pid);
        filled += requests * BATCH;
      }
      return runLoad({ ...load, ...there, pages: PEER_PAGES }, peer.pid, PAGE);
    },
  );
  noteLoad(bench, "kinesaliteGetRecords", "kinesalite (in memory)", kinesalite);
  const range = {
    kind: "redis-range",
    key: "pages",
    records: PAGE,
    pages: PAGES,
    recordBytes: RECORD_BYTES,
    connections: 2,
    window: 1,
  } as const;
  const ways = {
    json: () => own(bench, "GetRecords", load, PAGE),
    cbor: () => own(bench, "GetRecords as CBOR", { ...load, codec: "cbor" }, PAGE),
  };
  const withRedis = await beside(
    bench,
    "redis",
    () => startRedis(dir),
    async ({ port, pid }) => {
      await fillRedis(port, "pages", PAGE * PAGES, RECORD_BYTES);
      return inTurns({ ...ways, redis: () => runLoad({ ...range, port }, pid, PAGE) });
    },
  );
  const { json, cbor, redis } = withRedis ?? { ...(await inTurns(ways)), redis: [] };
  noteLoad(bench, "getRecords", "Headwater, JSON", middle(json));
  noteLoad(bench, "getRecordsCbor", "Headwater, CBOR", middle(cbor));
  noteLoad(bench, "redisRange", "redis, XRANGE", middle(redis));
  const replay = await own(bench, "GetRecords of a replay", { ...load, pages: REPLAY_PAGES }, PAGE);
  noteLoad(bench, "getRecordsReplay", "Headwater, JSON, a replay of 80 MB", replay);
  bars.bar("getRecordsToKinesalite", ratio(middle(json), kinesalite), ">=", 25, "GetRecords / kinesalite");
  bars.bar("getRecordsToRedis", middleRatio(json, redis), ">=", 2, "GetRecords / redis");
  const cborToRedis = middleRatio(cbor, redis);
  if (cborToRedis !== undefined)
    bars.note("getRecordsCborToRedis", cborToRedis, "GetRecords as CBOR / redis");
}
