/**
 * GetRecords from the beginning of a stream, beside kinesalite and redis. The same pages are read again
 * and again, so that all of them have them in memory.
 */
import { runLoad } from "../load/load.ts";
import { fillRedis, startKinesalite, startRedis } from "../peers/peers.ts";
import { BATCH, beside, noteLoad, own, RECORD_BYTES, ratio, type StreamsBench, WARM_MS } from "./part.ts";

const PAGE = 10_000;
const PAGES = 8;
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
  for (let filled = 0; filled < PAGE * PAGES; ) {
    const some = await own(bench, "filling", { ...fill, measureMs: 1_000 });
    if (some === undefined) break;
    filled += some.requests * BATCH;
  }
  const get = await own(bench, "GetRecords", load, PAGE);
  noteLoad(bench, "getRecords", "Headwater, JSON", get);
  const cbor = await own(bench, "GetRecords as CBOR", { ...load, codec: "cbor" }, PAGE);
  noteLoad(bench, "getRecordsCbor", "Headwater, CBOR", cbor);
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
  const redis = await beside(
    bench,
    "redis",
    () => startRedis(dir),
    async (peer) => {
      await fillRedis(peer.port, "pages", PAGE * PAGES, RECORD_BYTES);
      return runLoad(
        {
          kind: "redis-range",
          key: "pages",
          records: PAGE,
          pages: PAGES,
          recordBytes: RECORD_BYTES,
          port: peer.port,
          connections: 2,
          window: 1,
        },
        peer.pid,
        PAGE,
      );
    },
  );
  noteLoad(bench, "redisRange", "redis, XRANGE", redis);
  bars.bar("getRecordsToKinesalite", ratio(get, kinesalite), ">=", 25, "GetRecords / kinesalite");
  bars.bar("getRecordsToRedis", ratio(get, redis), ">=", 2, "GetRecords / redis");
}
