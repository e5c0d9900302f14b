/** `npm run faults -- NAME --times N`: real processes, harmed on purpose, then judged. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runAgentOrdeal } from "../support/agent-ordeal.ts";
import { runClusterOrdeal } from "../support/cluster-ordeal.ts";
import { judgeLongOutage } from "../support/long-outage.ts";
import { natsMissing } from "../support/nats-cluster.ts";
import { runOrdeal } from "../support/ordeal.ts";
import { runStreamOrdeal } from "../support/stream-ordeal.ts";

const USAGE = `npm run faults -- NAME [--times N] [--seed S] [--seconds S] [--hangs]

  agent      an agent with sensors, a board, a log, posts and a camera: it and the gateway are killed, its
             power is cut, its disk is full, its clock jumps, its connections are cut, stalled, delayed, half
             closed and forgotten, the board is unplugged, the camera hangs and is killed; at each second time
             with live records first. Once, a million records that waited for seven days are drained, in
             order and live first (power cuts and full disks as root, where a file system can be mounted by
             loop; jumps of the clock where Debian's faketime is installed)
  pipeline   agent and gateway are each killed five times a minute, at random moments
  streams    a gateway under load is killed, cut off from power and left without disk space; then bytes
             of its files are flipped (the last three as root, where a file system can be mounted by loop);
             then two gateways on a NATS cluster, and their nodes, are killed, and nodes are stopped and woken
             (where nats-server is installed; one before 2.10 loses records by being woken, so its nodes are
             stopped with --hangs only)

The last line is \`lost N, doubled N, corrupted N\`; the exit code is 0 only if all are 0 and nothing else was found.
`;

interface Run {
  readonly dir: string;
  readonly seed: number;
  readonly seconds: number;
  /** Of NATS nodes. */
  readonly hangs?: boolean;
  readonly say: (line: string) => void;
}

interface Judged {
  readonly lost: number;
  readonly doubled: number;
  readonly corrupted: number;
  readonly findings: readonly string[];
  readonly compared: object;
}

/** The parts of an ordeal, one after the other, each in a folder of its own. */
function ordealsOf(name: string, round: number): Array<(run: Run) => Promise<Judged>> {
  if (name === "agent") {
    const outage = async (run: Run): Promise<Judged> => judgeLongOutage({ ...run, dir: await newFolder() });
    const liveFirst = round % 2 === 1;
    const ordeal = (run: Run): Promise<Judged> => runAgentOrdeal({ ...run, liveFirst });
    return round === 0 ? [ordeal, outage] : [ordeal];
  }
  if (name === "pipeline") {
    return [(run) => runOrdeal({ ...run, kills: Math.max(1, Math.round(run.seconds / 12)) })];
  }
  const cluster = async (run: Run): Promise<Judged> => {
    const missing = natsMissing();
    if (missing === undefined) {
      run.say("now two gateways in front of three NATS nodes");
      return runClusterOrdeal({ ...run, dir: await newFolder() });
    }
    run.say(`LEFT OUT: the loss of gateways and nodes of a NATS cluster, as ${missing}`);
    return { lost: 0, doubled: 0, corrupted: 0, findings: [], compared: { cluster: "left out" } };
  };
  return [runStreamOrdeal, cluster];
}

function newFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "headwater-faults-"));
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      times: { type: "string", default: "1" },
      seed: { type: "string" },
      seconds: { type: "string", default: "60" },
      hangs: { type: "boolean" },
      help: { type: "boolean" },
    },
    allowPositionals: true,
  });
  const name = positionals[0] ?? "pipeline";
  if (values.help || !["agent", "pipeline", "streams"].includes(name)) {
    process.stdout.write(USAGE);
    return values.help ? 0 : 2;
  }
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const times = Number(values.times);
  const seconds = Number(values.seconds);
  if (![seed, times, seconds].every(Number.isFinite) || times < 1 || seconds < 20) {
    process.stderr.write(`--times from 1, --seconds from 20\n\n${USAGE}`);
    return 2;
  }
  const sum = { lost: 0, doubled: 0, corrupted: 0, findings: 0 };
  for (let i = 0; i < times; i++) {
    const dir = await newFolder();
    process.stdout.write(`run ${i + 1} of ${times}, seed ${seed + i}, folder ${dir}\n`);
    const say = (line: string) => void process.stdout.write(`  ${line}\n`);
    for (const ordeal of ordealsOf(name, i)) {
      const verdict = await ordeal({
        dir,
        seed: seed + i,
        seconds,
        say,
        ...(values.hangs && { hangs: true }),
      });
      for (const finding of verdict.findings) say(finding);
      say(`compared ${JSON.stringify(verdict.compared)}`);
      sum.lost += verdict.lost;
      sum.doubled += verdict.doubled;
      sum.corrupted += verdict.corrupted;
      sum.findings += verdict.findings.length;
    }
  }
  process.stdout.write(`lost ${sum.lost}, doubled ${sum.doubled}, corrupted ${sum.corrupted}\n`);
  // A finding may be of another kind, such as a process that was left over.
  return sum.lost + sum.doubled + sum.corrupted + sum.findings === 0 ? 0 : 1;
}

process.exit(await main());
