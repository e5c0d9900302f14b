/** One nats-server whose configuration and files change while gateways hold on to it. */
import type { ChildProcess } from "node:child_process";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { spawnNats } from "../../../../support/nats-cluster.ts";
import { freePorts } from "../../../../support/program.ts";
import { removeFolder } from "../../../../support/remove-folder.ts";

export interface SingleNode {
  readonly servers: string[];
  /** Ends what runs, and starts it anew with these lines in its configuration. */
  run(lines?: string): Promise<void>;
  /** `run` with an account that is limited so, in which everybody is. Resolves when it answers. */
  runLimited(jetStream: string): Promise<void>;
  /** Resolves with a connection as soon as it answers. */
  link(): Promise<Link>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Copies what a JetStream stream has on disk now. @returns puts it back in place of what is there then */
  snapshot(stream: string): Promise<() => Promise<void>>;
  stop(): Promise<void>;
}

export async function startSingleNode(): Promise<SingleNode> {
  const dir = await mkdtemp(join(tmpdir(), "headwater-nats-"));
  const [port] = await freePorts(1);
  const servers = [`127.0.0.1:${port}`];
  let child: ChildProcess | undefined;
  const kill = async (): Promise<void> => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null) return;
    const gone = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGKILL");
    await gone;
  };
  const run = async (lines = ""): Promise<void> => {
    await kill();
    const own = `host: 127.0.0.1\nport: ${port}\nmax_payload: 16MB\njetstream { store_dir: "${dir}" }\n`;
    await writeFile(join(dir, "node.conf"), own + lines);
    child = spawnNats(["-c", join(dir, "node.conf")]);
  };
  const link = async (): Promise<Link> => {
    for (;;) {
      try {
        return await Link.open({ servers, clock: systemClock, metrics: new Metrics() });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  };
  const runLimited = async (jetStream: string): Promise<void> => {
    await run(
      `accounts {\n A { jetstream: { ${jetStream} }\n users: [{user: a, password: a}] }\n}\nno_auth_user: a\n`,
    );
    await (await link()).close();
  };
  const snapshot = async (stream: string): Promise<() => Promise<void>> => {
    const from = join(dir, "jetstream", "$G", "streams", stream);
    await cp(from, join(dir, stream), { recursive: true });
    return async () => {
      await rm(from, { recursive: true });
      await cp(join(dir, stream), from, { recursive: true });
    };
  };
  const stop = async (): Promise<void> => {
    await kill();
    await removeFolder(dir);
  };
  await run();
  return { servers, run, runLimited, link, kill, snapshot, stop };
}
