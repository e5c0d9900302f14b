/** What comes by MQTT: frames as agents send them, beside JetStream, and plain sensors, beside mosquitto. */
import { runLoad } from "../load/load.ts";
import { startJetStream, startMosquitto } from "../peers/peers.ts";
import { beside, noteLoad, own, PEER_LOAD, RECORD_BYTES, ratio, type StreamsBench, WARM_MS } from "./part.ts";
import { inTurns, middle, middleRatio } from "./turns.ts";

export async function mqtt(bench: StreamsBench): Promise<void> {
  const { say, bars, dir } = bench;
  say("MQTT: frames of 100 from 16 devices, then 1,000 plain sensors, QoS 1");
  const agents = {
    kind: "agents",
    stream: "frames",
    records: 100,
    recordBytes: RECORD_BYTES,
    connections: 16,
    window: 8,
    warmMs: WARM_MS,
  } as const;
  const ownFrames = () => own(bench, "frames", agents, 100);
  const publishes = { kind: "jetstream", subject: "bench.a", ...PEER_LOAD } as const;
  const withPeer = await beside(
    bench,
    "JetStream",
    () => startJetStream(dir),
    ({ port, pid }) => inTurns({ frames: ownFrames, jetStream: () => runLoad({ ...publishes, port }, pid) }),
  );
  const turns = withPeer ?? { ...(await inTurns({ frames: ownFrames })), jetStream: [] };
  const frames = middle(turns.frames);
  noteLoad(bench, "frames", "Headwater, frames of 100", frames);
  noteLoad(bench, "framesJetStream", "JetStream, file (synced later)", middle(turns.jetStream));
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
  bars.bar("framesToJetStream", middleRatio(turns.frames, turns.jetStream), ">=", 10, "frames / JetStream");
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
