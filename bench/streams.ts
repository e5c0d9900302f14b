/**
 * The stream log's figures, each beside its peers and the disk's own speed, one after the other in
 * one run. What Headwater answers is on disk (fdatasync); what the peers promise stands at their
 * start in peers.ts. Load comes from a process of its own; on a machine of two cores it takes its
 * share of them, from Headwater and from the peers alike, so CPU seconds are measured as well.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bars } from "./bars.ts";
import { appendFloor, overwriteFloor } from "./floor.ts";
import { type Load, type LoadResult, runLoad } from "./load/load.ts";
import {
  fillRedis,
  installPeers,
  startJetStream,
  startKinesalite,
  startMosquitto,
  startRedis,
} from "./peers/peers.ts";
import { type Peer, PeerAbsentError } from "./peers/server.ts";
import { SHARD_SWEEP, StreamsGateway } from "./streams-gateway.ts";
import { openingTime } from "./streams-opening.ts";

export const RECORD_BYTES = 200;
const BATCH = 500;
/** As much as one PutRecords leaves in the log. */
const FLOOR_BATCH_BYTES = BATCH * (RECORD_BYTES + 16);
const FLOOR_BYTES = 256 * 1_048_576;
const PAGE = 10_000;
const PAGES = 8;
const PUSHED_PER_SECOND = 10_000;
/** Until both a gateway and a peer that run in V8 have compiled what they do. */
const WARM_MS = 3_000;
/** kinesalite needs long for a large page, and does not get faster by more of them. */
const PEER_PAGES = 2;

type Say = (line: string) => void;

interface Bench {
  readonly say: Say;
  readonly bars: Bars;
  readonly dir: string;
  readonly peersFolder: string;
  readonly gateway: StreamsGateway;
}

export async function benchStreams(say: Say, args: readonly string[] = []): Promise<Record<string, number>> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-bench-"));
  const gateway = new StreamsGateway(join(dir, "gateway"));
  const bars = new Bars(say);
  const bench: Bench = { say, bars, dir, gateway, peersFolder: join(process.cwd(), ".data", "bench-peers") };
  const only = args
    .find((arg) => arg.startsWith("--only="))
    ?.slice("--only=".length)
    .split(",");
  const wanted = (part: string): boolean => only === undefined || only.includes(part);
  try {
    await installPeers(bench.peersFolder, say);
    await gateway.start();
    for (const [name, part] of Object.entries(PARTS)) if (wanted(name)) await part(bench);
    await gateway.close();
    if (wanted("opening"))
      await openingTime({ dir: join(dir, "opening"), full: args.includes("--full"), say, bars });
    bars.end();
  } finally {
    await gateway.close();
    await rm(dir, { recursive: true, force: true });
  }
  return bars.figures;
}

/** In this order; `--only=puts,mqtt` leaves out the others, and with them the ratios to peers that those measured. */
const PARTS: Readonly<Record<string, (bench: Bench) => Promise<void>>> = { puts, gets, mqtt, push, sweep };

/** What cannot be measured is said, and its bar stays open; it fails nothing else. */
async function tried<T>(say: Say, what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    say(`  ${what}: ${error instanceof PeerAbsentError ? "absent" : "failed"}: ${message}`);
    return undefined;
  }
}

/** Runs with a peer, and ends it. */
function beside<P extends Peer, T>(
  bench: Bench,
  what: string,
  start: () => Promise<P>,
  work: (peer: P) => Promise<T>,
): Promise<T | undefined> {
  return tried(bench.say, what, async () => {
    const peer = await start();
    try {
      return await work(peer);
    } finally {
      await peer.close();
    }
  });
}

function own(bench: Bench, what: string, load: OwnLoad, records = 1): Promise<LoadResult | undefined> {
  const { endpoint, mqttPort, pid } = bench.gateway;
  const isMqtt = load.kind === "sensors" || load.kind === "agents";
  return tried(bench.say, what, () =>
    runLoad({ ...load, endpoint, port: isMqtt ? mqttPort : endpoint.port } as Load, pid, records),
  );
}

/** A load without the place that it is sent to. */
type OwnLoad = Load extends infer L ? (L extends Load ? Omit<L, "port" | "endpoint"> : never) : never;

const ratio = (
  a: { perSecond: number } | undefined,
  b: { perSecond: number } | undefined,
): number | undefined => (a === undefined || b === undefined ? undefined : a.perSecond / b.perSecond);

function noteLoad({ bars }: Bench, name: string, text: string, result: LoadResult | undefined): void {
  if (result === undefined) return;
  bars.note(`${name}PerSecond`, result.perSecond, `${text}, records/s`);
  bars.figures[`${name}P99Ms`] = Number(result.p99Ms.toPrecision(3));
  bars.figures[`${name}GeneratorCores`] = Number(result.generatorCores.toPrecision(2));
}

async function puts(bench: Bench): Promise<void> {
  const { say, bars, dir } = bench;
  say(`PutRecords of ${BATCH} × ${RECORD_BYTES} bytes, 8 connections`);
  const fresh = await appendFloor(join(dir, "floor"), FLOOR_BYTES, FLOOR_BATCH_BYTES);
  const recycled = await overwriteFloor(join(dir, "floor"), FLOOR_BYTES, FLOOR_BATCH_BYTES);
  bars.note("floorFreshMBps", fresh.bytesPerSecond / 1e6, "floor: fresh file, MB/s");
  bars.note("floorRecycledMBps", recycled.bytesPerSecond / 1e6, "floor: file written before, MB/s");
  const load = {
    kind: "put-records",
    stream: "bench",
    records: BATCH,
    recordBytes: RECORD_BYTES,
    connections: 8,
    window: 1,
    warmMs: WARM_MS,
  } as const;
  const put = await own(bench, "PutRecords", load, BATCH);
  noteLoad(bench, "putRecords", "Headwater, HTTP/1.1, JSON", put);
  const h2 = await own(bench, "PutRecords over h2c", { ...load, h2: true }, BATCH);
  noteLoad(bench, "putRecordsH2c", "Headwater, h2c, JSON", h2);
  const cbor = await own(bench, "PutRecords as CBOR", { ...load, codec: "cbor" }, BATCH);
  noteLoad(bench, "putRecordsCbor", "Headwater, HTTP/1.1, CBOR", cbor);
  const single = {
    kind: "put-record",
    stream: "bench",
    recordBytes: RECORD_BYTES,
    connections: 200,
    window: 1,
    warmMs: WARM_MS,
  } as const;
  const one = await own(bench, "PutRecord", single);
  noteLoad(bench, "putRecord", "Headwater, PutRecord, 200 connections", one);

  const kinesalite = await beside(
    bench,
    "kinesalite",
    () => startKinesalite(bench.peersFolder, dir),
    async (peer) => ({
      many: await runLoad({ ...load, port: peer.port, endpoint: peer.endpoint }, peer.pid, BATCH),
      one: await runLoad({ ...single, port: peer.port, endpoint: peer.endpoint }, peer.pid),
    }),
  );
  noteLoad(bench, "kinesalitePutRecords", "kinesalite (in memory)", kinesalite?.many);
  noteLoad(bench, "kinesalitePutRecord", "kinesalite, PutRecord", kinesalite?.one);
  jetStream = await beside(
    bench,
    "JetStream",
    () => startJetStream(dir),
    (peer) =>
      runLoad(
        {
          kind: "jetstream",
          subject: "bench.a",
          recordBytes: RECORD_BYTES,
          port: peer.port,
          connections: 8,
          window: BATCH,
        },
        peer.pid,
      ),
  );
  noteLoad(bench, "jetStream", "JetStream, file (synced later)", jetStream);
  const redis = await beside(
    bench,
    "redis",
    () => startRedis(dir),
    (peer) =>
      runLoad(
        {
          kind: "redis-add",
          key: "bench",
          recordBytes: RECORD_BYTES,
          port: peer.port,
          connections: 8,
          window: BATCH,
        },
        peer.pid,
      ),
  );
  noteLoad(bench, "redisAdd", "redis, appendfsync always", redis);

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
  bars.bar("h2cToHttp1", ratio(h2, put), ">=", 0.75, "h2c / HTTP/1.1");
  bars.bar("cborToJson", ratio(cbor, put), ">=", 0.65, "CBOR / JSON");
  bars.bar("putRecordToKinesalite", ratio(one, kinesalite?.one), ">=", 12, "PutRecord / kinesalite");
}

let jetStream: LoadResult | undefined;

async function gets(bench: Bench): Promise<void> {
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
  noteLoad(bench, "getRecords", "Headwater", get);
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

async function mqtt(bench: Bench): Promise<void> {
  const { say, bars, dir } = bench;
  say("MQTT: frames of 100 from 16 devices, then 1,000 plain sensors, QoS 1");
  const agents = {
    kind: "agents",
    stream: "frames",
    records: 100,
    recordBytes: RECORD_BYTES,
    connections: 16,
    window: 8,
  } as const;
  const frames = await own(bench, "frames", { ...agents, warmMs: WARM_MS }, 100);
  noteLoad(bench, "frames", "Headwater, frames of 100", frames);
  const sensors = { kind: "sensors", recordBytes: RECORD_BYTES, connections: 1_000 } as const;
  const one = await own(bench, "sensors", { ...sensors, window: 1 });
  noteLoad(bench, "sensors1", "Headwater, sensors, 1 in flight", one);
  const many = await own(bench, "sensors", { ...sensors, window: 16 });
  noteLoad(bench, "sensors16", "Headwater, sensors, 16 in flight", many);
  const mosquitto = await beside(
    bench,
    "mosquitto",
    () => startMosquitto(dir),
    async (peer) => ({
      one: await runLoad({ ...sensors, window: 1, port: peer.port }, peer.pid),
      many: await runLoad({ ...sensors, window: 16, port: peer.port }, peer.pid),
    }),
  );
  noteLoad(bench, "mosquitto1", "mosquitto (never syncs), 1 in flight", mosquitto?.one);
  noteLoad(bench, "mosquitto16", "mosquitto (never syncs), 16 in flight", mosquitto?.many);
  bars.bar("framesToJetStream", ratio(frames, jetStream), ">=", 10, "frames / JetStream");
  bars.bar("framesPubackP99Ms", frames?.p99Ms, "<=", 20, "frames, PUBACK p99 in ms");
  bars.bar("sensors1ToMosquitto", ratio(one, mosquitto?.one), ">=", 0.45, "sensors / mosquitto, 1 in flight");
  bars.bar(
    "sensors16ToMosquitto",
    ratio(many, mosquitto?.many),
    ">=",
    1,
    "sensors / mosquitto, 16 in flight",
  );
  if (frames) bars.note("framesCpuSeconds", frames.serverCpuSecondsPerMillion, "frames, CPU s per million");
  if (many)
    bars.note(
      "sensors16CpuSeconds",
      many.serverCpuSecondsPerMillion,
      "sensors, 16 in flight, CPU s per million",
    );
}

/** From publish over fdatasync to the push, at a rate that is far from what the gateway can do. */
async function push(bench: Bench): Promise<void> {
  const { say, bars, gateway } = bench;
  say(`publish → fdatasync → SubscribeToShard at ${PUSHED_PER_SECOND.toLocaleString("en-US")} records/s`);
  const load = {
    kind: "push",
    stream: "pushes",
    recordsPerSecond: PUSHED_PER_SECOND,
    recordBytes: RECORD_BYTES,
    connections: 1,
    window: 1,
    endpoint: gateway.endpoint,
    port: gateway.mqttPort,
  } as const;
  const pushed = await tried(say, "push", () => runLoad(load, gateway.pid));
  noteLoad(bench, "pushed", "Headwater, pushed", pushed);
  bars.bar("pushP50Ms", pushed?.p50Ms, "<=", 1, "publish to push, p50 in ms");
  bars.bar("pushP99Ms", pushed?.p99Ms, "<=", 5, "publish to push, p99 in ms");
}

/** Cost must grow as the work grows: shards by themselves cost nothing, and large records only their bytes. */
async function sweep(bench: Bench): Promise<void> {
  const { say, bars, gateway } = bench;
  say("the same PutRecords at other numbers of shards and sizes of records");
  const load = {
    kind: "put-records",
    stream: "bench",
    records: BATCH,
    recordBytes: RECORD_BYTES,
    connections: 8,
    window: 1,
    measureMs: 2_000,
  } as const;
  for (const shards of SHARD_SWEEP) {
    const put = await own(bench, `${shards} shards`, { ...load, stream: `shards-${shards}` }, BATCH);
    if (put) bars.note(`putRecordsShards${shards}`, put.perSecond, `${shards} shards, records/s`);
  }
  for (const [kib, records] of [
    [1, 500],
    [64, 64],
  ] as const) {
    const put = await own(bench, `${kib} KiB`, { ...load, recordBytes: kib * 1_024, records }, records);
    if (put)
      bars.note(
        `putRecords${kib}KiBMBps`,
        (put.perSecond * kib * 1_024) / 1e6,
        `records of ${kib} KiB, MB/s`,
      );
  }
  bars.note(
    "gatewayMiB",
    (await gateway.residentBytes()) / 1_048_576,
    "gateway's memory after all this, MiB",
  );
}
