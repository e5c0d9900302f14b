/**
 * The agent's ordeal: a real agent with all kinds of sources, harmed in every way that devices are harmed in the
 * field (agent-harms.ts), then judged by what the gateway holds (agent-verdict.ts).
 */
import { GAPS_STREAM, type GapRecord } from "../../protocol/topics.ts";
import { Harms } from "./agent-harms.ts";
import { AgentRig } from "./agent-rig.ts";
import {
  AgentVerdict,
  type BoardLine,
  bySensor,
  judgeBoard,
  judgeNumbered,
  judgeUnits,
} from "./agent-verdict.ts";
import { truthLines } from "./delivered.ts";
import { FootageWatch } from "./footage-watch.ts";
import { JumpingClock } from "./jumping-clock.ts";
import { randomFrom } from "./ordeal.ts";
import { eventually } from "./program.ts";
import { removeFolder } from "./remove-folder.ts";

export interface AgentOrdealOptions {
  readonly dir: string;
  readonly seed: number;
  readonly seconds: number;
  readonly say: (line: string) => void;
  /** Of the agent alone: such as what breaks it on purpose, to see that this finds it out. */
  readonly agentEnvironment?: Readonly<Record<string, string>>;
  /** Live records may overtake older ones of their sensor. */
  readonly liveFirst?: boolean;
  /** How many times longer than promised things may take, on a machine that does much else; 1 unless told. */
  readonly patience?: number;
}

/** A connection that the network forgot is found within 30 s, and then all that waited is sent. */
const DRAIN_MS = 90_000;
/** Longer than the log's tail waits for a file that was rotated. */
const QUIET_MS = 2_500;
const FFMPEG_GONE_MS = 20_000;

/** The folder is removed when nothing was found. */
export async function runAgentOrdeal(options: AgentOrdealOptions): Promise<AgentVerdict> {
  const { dir, seed, seconds, say, liveFirst = false, patience = 1 } = options;
  const random = randomFrom(seed);
  const verdict = new AgentVerdict();
  const missing = JumpingClock.missing();
  if (missing !== undefined) say(`LEFT OUT: jumps of the agent's clock, as ${missing}`);
  const clock = missing === undefined ? new JumpingClock(dir) : undefined;
  await clock?.setOffset(0);
  const environment = withPreloads(clock?.environment ?? {}, options.agentEnvironment ?? {});
  const rig = new AgentRig({ dir, seed, say, random, agentEnvironment: environment, liveFirst });
  try {
    await rig.start();
    const footage = new FootageWatch(rig.path("agent.log"));
    const harms = new Harms({ rig, random, verdict, footage, clock, say, patience });
    const rotating = setInterval(() => rig.log.rotate(), ROTATE_EVERY_MS);
    try {
      await harms.run(seconds);
    } finally {
      clearInterval(rotating);
    }
    say("no more harm; everything gets on by itself, then ends");
    await recovered(rig, footage, verdict);
    await settle(rig, verdict);
    say("drained; comparing");
    await judge(rig, footage, liveFirst, verdict);
    await endAll(rig, verdict);
  } finally {
    await rig.close();
    await rig.removeDisk();
    await clock?.close();
  }
  if (verdict.findings.length === 0) await removeFolder(dir);
  return verdict;
}

const ROTATE_EVERY_MS = 4_000;

/** Both, with the libraries that either wants loaded before others. */
function withPreloads(
  one: Readonly<Record<string, string>>,
  other: Readonly<Record<string, string>>,
): Record<string, string> {
  const preloads = [one.LD_PRELOAD, other.LD_PRELOAD].filter((library) => (library ?? "") !== "");
  return { ...one, ...other, ...(preloads.length > 0 && { LD_PRELOAD: preloads.join(":") }) };
}

/** Of footage; one alone proves nothing. */
const LEAST_UNITS = 2;

/** Each source and the camera have brought something new, and enough to prove something. */
async function recovered(rig: AgentRig, footage: FootageWatch, verdict: AgentVerdict): Promise<void> {
  const before = rig.sources.map(({ acknowledged }) => acknowledged);
  const units = await footage.stored();
  await eventually("every source gets on when all is well again", DRAIN_MS, async () => {
    const flows = (await footage.stored()) >= Math.max(units + 1, LEAST_UNITS);
    return flows && rig.sources.every(({ acknowledged }, i) => acknowledged > before[i]!) ? true : undefined;
  }).catch((error: Error) => verdict.find("wrong", error.message));
}

/** Everything that was sent reaches the gateway, if it ever does. */
async function settle(rig: AgentRig, verdict: AgentVerdict): Promise<void> {
  const late = (error: Error): void => verdict.find("wrong", error.message);
  for (const source of rig.sources) source.finish();
  await rig.quietenBoard();
  await rig.camera.stop();
  await eventually("all that was sent is acknowledged", DRAIN_MS, async () =>
    rig.sources.every(({ idle }) => idle) ? true : undefined,
  ).catch(late);
  let state = "";
  let sinceMs = performance.now();
  await eventually("the agent's buffers are empty, and nothing more comes", DRAIN_MS, async () => {
    const { buffer, footage, sources } = await rig.agentStatus();
    const now = JSON.stringify(sources.map(({ records }) => records));
    const waits = buffer.waitingRecords + (footage?.waitingRecords ?? 0) > 0;
    if (waits || now !== state) sinceMs = performance.now();
    state = now;
    return performance.now() - sinceMs > QUIET_MS ? true : undefined;
  }).catch(late);
}

async function judge(
  rig: AgentRig,
  footage: FootageWatch,
  liveFirst: boolean,
  verdict: AgentVerdict,
): Promise<void> {
  const came = bySensor(await rig.read("sensors"), verdict);
  judgeNumbered(rig.sources, came, !liveFirst, verdict);
  const gaps = (await rig.read(GAPS_STREAM)).map((text) => JSON.parse(text) as GapRecord);
  const lines = await truthLines<BoardLine>(rig.path("board-truth", "board.ndjson"));
  const ofBoard = gaps.filter(({ sensor }) => sensor === "board");
  judgeBoard(lines, came.get("board") ?? [], ofBoard, !liveFirst, verdict);
  // Nothing was lost that anybody but board and camera could have lost, so nobody may say so.
  for (const { sensor, stream, reason } of gaps)
    if (sensor !== "board" && !stream.startsWith("video."))
      verdict.find("wrong", `a gap is reported of ${sensor} in ${stream}: ${reason}`);
  const known = new Set([...rig.sources.map(({ sensor }) => sensor), "board"]);
  for (const sensor of came.keys())
    if (!known.has(sensor)) verdict.find("corrupted", `records of ${sensor}, which there is not`);
  const truth = await truthLines<{ vclSha256: string }>(rig.path("camera-truth", "camera.ndjson"));
  const units = [];
  for (const { id, epoch, sequence, state } of await rig.footage()) {
    const file = state === "whole" ? await rig.fragmentFile(id) : undefined;
    units.push({ name: `${epoch}/${sequence}`, state, file });
  }
  const pictures = truth.map(({ vclSha256 }) => vclSha256);
  judgeUnits(units, await footage.units(), pictures, verdict);
  for (const refusal of rig.poster.refusals) verdict.find("wrong", `a post was refused with ${refusal}`);
  const quarantined = await rig.quarantined();
  if (quarantined > 0) verdict.find("corrupted", `${quarantined} publishes were not understood`);
}

/** Agent and gateway end as asked, and no ffmpeg outlives them. */
async function endAll(rig: AgentRig, verdict: AgentVerdict): Promise<void> {
  verdict.count("agentRestartedItself", rig.agent.ownEnds.length);
  for (const { how } of rig.gateway.ownEnds) verdict.find("wrong", `the gateway ended by itself: ${how}`);
  for (const how of await rig.close())
    if (how !== 0) verdict.find("wrong", `a program ended with ${how} instead of 0`);
  await eventually("no ffmpeg is left", FFMPEG_GONE_MS, async () =>
    (await rig.ffmpegs()).length === 0 ? true : undefined,
  ).catch((error: Error) => verdict.find("wrong", error.message));
}
