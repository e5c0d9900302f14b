/** Facts about gateways in front of a NATS cluster of three, and what a gateway's streams hold. */
import { randomBytes } from "node:crypto";
import test, { type TestContext } from "node:test";
import { openJetStreamStreams } from "../../../../../gateway/streams/stores/jetstream/jetstream.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { type Clock, systemClock } from "../../../../../runtime/clock.ts";
import { createLog, type Log } from "../../../../../runtime/log.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { type ReadRecord, readAll } from "../../../../contract/stream-records.ts";
import { type NatsCluster, natsMissing, startNatsCluster } from "../../../../support/nats-cluster.ts";

const missing = natsMissing();
let shared: NatsCluster | undefined;

/** The cluster of all facts of a file: started for the first one. */
async function cluster(): Promise<NatsCluster> {
  shared ??= await startNatsCluster();
  return shared;
}

test.after(() => shared?.stop());

export interface Ground {
  readonly cluster: NatsCluster;
  /** Of this fact's names on the cluster. */
  readonly prefix: string;
  /** Another gateway in front of the cluster. */
  open(clock?: Clock, log?: Log): Promise<Streams>;
}

export function clusterFact(what: string, body: (ground: Ground, t: TestContext) => Promise<void>): void {
  test(what, { skip: missing ?? false, timeout: 180_000 }, async (t) => {
    const prefix = `t${randomBytes(6).toString("hex")}`;
    const opened: Streams[] = [];
    const said: string[] = [];
    const { servers } = await cluster();
    const open = async (clock = systemClock, log = logInto(said, opened.length)): Promise<Streams> => {
      const parts = { clock, log, metrics: new Metrics() };
      const streams = await openJetStreamStreams({ servers, replicas: 3, prefix, ...parts });
      opened.push(streams);
      return streams;
    };
    try {
      await body({ cluster: await cluster(), prefix, open }, t);
    } catch (error) {
      for (const line of [...said, ...(await shared!.complaints())]) console.error(line);
      throw error;
    } finally {
      await Promise.all(opened.map((streams) => streams.close()));
    }
  });
}

const SAID = 200;

/** For who reads of a failure: the last lines of all gateways of a fact. */
function logInto(said: string[], gateway: number): Log {
  const write = (line: string): void => {
    said.push(line.trimEnd());
    if (said.length > SAID) said.shift();
  };
  return createLog(`gateway ${gateway}`, "info", { write });
}

export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** The records of all shards. */
export async function recordsOf(
  streams: Streams,
  name = "s",
): Promise<Array<ReadRecord & { readonly shardId: string }>> {
  const records: Array<ReadRecord & { readonly shardId: string }> = [];
  for (const { shardId } of streams.describe(name).shardList) {
    for (const record of await readAll(streams, name, shardId)) records.push({ ...record, shardId });
  }
  return records;
}

/** The texts of all shards. */
export async function textsOf(streams: Streams, name = "s"): Promise<string[]> {
  return (await recordsOf(streams, name)).map(({ text }) => text);
}
