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
import { installPeers } from "./peers/peers.ts";
import { StreamsGateway } from "./streams/gateway.ts";
import { gets } from "./streams/gets.ts";
import { mqtt } from "./streams/mqtt.ts";
import { openingTime } from "./streams/opening.ts";
import type { Say, StreamsBench } from "./streams/part.ts";
import { push } from "./streams/push.ts";
import { puts } from "./streams/puts.ts";
import { sweep } from "./streams/sweep.ts";

/** In this order; `--only=puts,mqtt` leaves out the others. */
const PARTS: Readonly<Record<string, (bench: StreamsBench) => Promise<void>>> = {
  puts,
  gets,
  mqtt,
  push,
  sweep,
};

export async function benchStreams(say: Say, args: readonly string[] = []): Promise<Record<string, number>> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-bench-"));
  const gateway = new StreamsGateway(join(dir, "gateway"));
  const bars = new Bars(say);
  const peersFolder = join(process.cwd(), ".data", "bench-peers");
  const bench: StreamsBench = { say, bars, dir, gateway, peersFolder };
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
