/** What each part of `bench streams` stands on: the gateway that is measured, its peers, and where figures go. */
import type { Bars } from "../bars.ts";
import { type Load, type LoadResult, runLoad } from "../load/load.ts";
import { type Peer, PeerAbsentError } from "../peers/server.ts";
import type { StreamsGateway } from "./gateway.ts";

export const RECORD_BYTES = 200;
/** Records of a PutRecords; AWS allows no more. */
export const BATCH = 500;
/** Until both a gateway and a peer that run in V8 have compiled what they do. */
export const WARM_MS = 3_000;

/** What most bars stand on. */
export const PUT_RECORDS = {
  kind: "put-records",
  stream: "bench",
  records: BATCH,
  recordBytes: RECORD_BYTES,
  connections: 8,
  window: 1,
} as const;

/** Of peers that take records one by one: as many under way as Headwater gets in its requests. */
export const PEER_LOAD = { recordBytes: RECORD_BYTES, connections: 8, window: BATCH } as const;

export type Say = (line: string) => void;

export interface StreamsBench {
  readonly say: Say;
  readonly bars: Bars;
  readonly dir: string;
  readonly peersFolder: string;
  readonly gateway: StreamsGateway;
}

/** A load without the place that it is sent to. */
type OwnLoad = Load extends infer L ? (L extends Load ? Omit<L, "port" | "endpoint"> : never) : never;

/** What cannot be measured is said, and its bar stays open; it fails nothing else. */
export async function tried<T>(say: Say, what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    say(`  ${what}: ${error instanceof PeerAbsentError ? "absent" : "failed"}: ${message}`);
    return undefined;
  }
}

/** Runs with a peer, and ends it. */
export function beside<P extends Peer, T>(
  bench: StreamsBench,
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

/** Sends the load to Headwater. @param records of one request */
export function own(
  bench: StreamsBench,
  what: string,
  load: OwnLoad,
  records = 1,
): Promise<LoadResult | undefined> {
  const { endpoint, mqttPort, pid } = bench.gateway;
  const isMqtt = load.kind === "sensors" || load.kind === "agents";
  return tried(bench.say, what, () =>
    runLoad({ ...load, endpoint, port: isMqtt ? mqttPort : endpoint.port } as Load, pid, records),
  );
}

export function ratio(
  a: { perSecond: number } | undefined,
  b: { perSecond: number } | undefined,
): number | undefined {
  return a === undefined || b === undefined ? undefined : a.perSecond / b.perSecond;
}

/** The three figures of a load, under names that begin with `name`. */
export function noteLoad(
  { bars }: StreamsBench,
  name: string,
  text: string,
  result: LoadResult | undefined,
): void {
  if (result === undefined) return;
  bars.note(`${name}PerSecond`, result.perSecond, `${text}, records/s`);
  bars.figures[`${name}P99Ms`] = Number(result.p99Ms.toPrecision(3));
  bars.figures[`${name}GeneratorCores`] = Number(result.generatorCores.toPrecision(2));
}
