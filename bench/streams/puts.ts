/** PutRecords and PutRecord, beside kinesalite, JetStream, redis and what the disk does without any of them. */
import { join } from "node:path";
import { appendFloor, overwriteFloor } from "../floor.ts";
import { type LoadResult, runLoad } from "../load/load.ts";
import { startJetStream, startKinesalite, startRedis } from "../peers/peers.ts";
import {
  BATCH,
  beside,
  noteLoad,
  own,
  PEER_LOAD,
  PUT_RECORDS,
  RECORD_BYTES,
  ratio,
  type StreamsBench,
  WARM_MS,
} from "./part.ts";
import { inTurns, middle, middleRatio } from "./turns.ts";

/** As much as one PutRecords leaves in the log. */
const FLOOR_BATCH_BYTES = BATCH * (RECORD_BYTES + 16);
const FLOOR_BYTES = 256 * 1_048_576;

const MANY = { ...PUT_RECORDS, warmMs: WARM_MS } as const;

const SINGLE = {
  kind: "put-record",
  stream: "bench",
  recordBytes: RECORD_BYTES,
  connections: 200,
  window: 1,
  warmMs: WARM_MS,
} as const;

/** What Node's client sends at most, whatever a server allows. */
const SMALL_FRAMES = { ...MANY, h2: true, h2FrameBytes: 16_384 } as const;

export async function puts(bench: StreamsBench): Promise<void> {
  const { say, bars, dir } = bench;
  say(`PutRecords of ${BATCH} × ${RECORD_BYTES} bytes, 8 connections`);
  const fresh = await appendFloor(join(dir, "floor"), FLOOR_BYTES, FLOOR_BATCH_BYTES);
  const recycled = await overwriteFloor(join(dir, "floor"), FLOOR_BYTES, FLOOR_BATCH_BYTES);
  bars.note("floorFreshMBps", fresh.bytesPerSecond / 1e6, "floor: fresh file, MB/s");
  bars.note("floorRecycledMBps", recycled.bytesPerSecond / 1e6, "floor: file written before, MB/s");
  const ways = await inTurns({
    http1: () => own(bench, "PutRecords", MANY, BATCH),
    h2: () => own(bench, "PutRecords over h2c", { ...MANY, h2: true }, BATCH),
    h2Small: () => own(bench, "PutRecords over h2c in frames of 16 KiB", SMALL_FRAMES, BATCH),
    cbor: () => own(bench, "PutRecords as CBOR", { ...MANY, codec: "cbor" }, BATCH),
  });
  const put = middle(ways.http1);
  noteLoad(bench, "putRecords", "Headwater, HTTP/1.1, JSON", put);
  noteLoad(bench, "putRecordsH2c", "Headwater, h2c, JSON", middle(ways.h2));
  noteLoad(bench, "putRecordsH2cSmallFrames", "Headwater, h2c, frames of 16 KiB, JSON", middle(ways.h2Small));
  noteLoad(bench, "putRecordsCbor", "Headwater, HTTP/1.1, CBOR", middle(ways.cbor));
  const one = await own(bench, "PutRecord", SINGLE);
  noteLoad(bench, "putRecord", "Headwater, PutRecord, 200 connections", one);
  const kinesalite = await kinesalitePuts(bench);
  const jetStream = await jetStreamPublishes(bench);
  await redisAdds(bench);

  bars.bar("putRecordsToKinesalite", ratio(put, kinesalite?.many), ">=", 30, "PutRecords / kinesalite");
  bars.bar("putRecordsToJetStream", ratio(put, jetStream), ">=", 2.5, "PutRecords / JetStream");
  const putBytes = put && put.perSecond * RECORD_BYTES;
  bars.bar(
    "putRecordsToFloor",
    putBytes && putBytes / fresh.bytesPerSecond,
    ">=",
    0.9,
    "PutRecords / fresh floor, payload bytes",
  );
  bars.bar(
    "putRecordsCpuSeconds",
    put?.serverCpuSecondsPerMillion,
    "<=",
    1.6,
    "PutRecords, CPU s per million",
  );
  bars.bar("h2cToHttp1", middleRatio(ways.h2, ways.http1), ">=", 0.75, "h2c / HTTP/1.1");
  bars.bar("cborToJson", middleRatio(ways.cbor, ways.http1), ">=", 0.65, "CBOR / JSON");
  bars.bar("putRecordToKinesalite", ratio(one, kinesalite?.one), ">=", 12, "PutRecord / kinesalite");
}

interface KinesalitePuts {
  readonly many: LoadResult;
  readonly one: LoadResult;
}

async function kinesalitePuts(bench: StreamsBench): Promise<KinesalitePuts | undefined> {
  const measured = await beside(
    bench,
    "kinesalite",
    () => startKinesalite(bench.peersFolder, bench.dir),
    async ({ port, endpoint, pid }) => ({
      many: await runLoad({ ...MANY, port, endpoint }, pid, BATCH),
      one: await runLoad({ ...SINGLE, port, endpoint }, pid),
    }),
  );
  noteLoad(bench, "kinesalitePutRecords", "kinesalite (in memory)", measured?.many);
  noteLoad(bench, "kinesalitePutRecord", "kinesalite, PutRecord", measured?.one);
  return measured;
}

async function jetStreamPublishes(bench: StreamsBench): Promise<LoadResult | undefined> {
  const load = { kind: "jetstream", subject: "bench.a", ...PEER_LOAD } as const;
  const measured = await beside(
    bench,
    "JetStream",
    () => startJetStream(bench.dir),
    ({ port, pid }) => runLoad({ ...load, port }, pid),
  );
  noteLoad(bench, "jetStream", "JetStream, file (synced later)", measured);
  return measured;
}

async function redisAdds(bench: StreamsBench): Promise<void> {
  const load = { kind: "redis-add", key: "bench", ...PEER_LOAD } as const;
  const measured = await beside(
    bench,
    "redis",
    () => startRedis(bench.dir),
    ({ port, pid }) => runLoad({ ...load, port }, pid),
  );
  noteLoad(bench, "redisAdd", "redis, appendfsync always", measured);
}
