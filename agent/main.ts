#!/usr/bin/env node
/** headwater-agent: reads argv and the environment, starts the agent, and ends it on a signal. */
import "./small-heap.ts";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { agentConfig } from "../config/agent-config.ts";
import { ConfigError, fromConfigFile, loadConfig } from "../config/loader.ts";
import { pause } from "../runtime/backoff.ts";
import { systemClock } from "../runtime/clock.ts";
import { withCredentials } from "../runtime/credentials.ts";
import { describeError } from "../runtime/errors.ts";
import { journalSink } from "../runtime/journal.ts";
import { createLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { ServiceManager } from "../runtime/service-manager.ts";
import { closeOnExit } from "../runtime/shutdown.ts";
import { VERSION } from "../runtime/version.ts";

/** After a failure, the other parts have so long to end. */
const FAILED_CLOSE_MS = 3_000;

const HELP = `headwater-agent: stores what sensors and cameras say, and brings it to the gateway

  headwater-agent --config FILE                      run
  headwater-agent status [--json] [--config FILE]    ask the agent that runs here how it is, and end:
                                                     0 it does its work, 1 it does not, 2 it cannot be asked
  headwater-agent join GATEWAY TOKEN [--config FILE] make this device known to a gateway, and end

  --config FILE   the config, such as agent.yaml
  --check         read the config, say what is wrong with it, and end
  --version       print the version
  --help          print this

Exit: 0 it ended as asked, 1 it failed, 2 the config or the command line is wrong.
`;

interface Arguments {
  command?: string | undefined;
  config?: string;
  check?: boolean;
  json?: boolean;
  help?: boolean;
  version?: boolean;
}

function readArguments(): Arguments {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        json: { type: "boolean" },
        config: { type: "string" },
        check: { type: "boolean" },
        help: { type: "boolean" },
        version: { type: "boolean" },
      },
    });
    const [command, ...others] = positionals;
    if (others.length > 0 || (command !== undefined && command !== "status")) {
      throw new Error(`unknown command: ${positionals.join(" ")}`);
    }
    return { ...values, command };
  } catch (error) {
    return exit(2, `${error instanceof Error ? error.message : error}\n\n${HELP}`);
  }
}

function exit(code: number, message: string): never {
  (code === 0 ? process.stdout : process.stderr).write(message);
  process.exit(code);
}

async function askForStatus({ config, json = false }: Arguments): Promise<void> {
  const { showStatus } = await import("./status/status-command.ts");
  process.exitCode = await showStatus({
    config,
    json,
    // https://no-color.org: any text that is not empty.
    coloured: process.stdout.isTTY === true && (process.env.NO_COLOR ?? "") === "",
    environment: process.env,
    write: (text) => process.stdout.write(text),
    complain: (text) => process.stderr.write(text),
  });
}

async function join(args: readonly string[]): Promise<void> {
  const { runJoin } = await import("./identity/join-command.ts");
  process.exitCode = await runJoin({
    args,
    environment: await withCredentials(process.env),
    clock: systemClock,
    readInput: () => text(process.stdin),
    write: (line) => process.stdout.write(line),
    complain: (line) => process.stderr.write(line),
  });
}

async function main(): Promise<void> {
  if (process.argv[2] === "join") return join(process.argv.slice(3));
  const values = readArguments();
  if (values.help) exit(0, HELP);
  if (values.version) exit(0, `${VERSION}\n`);
  if (values.command === "status") return askForStatus(values);
  if (values.config === undefined) exit(2, `--config FILE is missing\n\n${HELP}`);
  const file = values.config;
  const config = await loadConfig(file, agentConfig, await withCredentials(process.env));
  for (const source of config.sources) {
    if ("path" in source) source.path = fromConfigFile(file, source.path);
    if (source.type === "command" && source.cwd !== undefined) source.cwd = fromConfigFile(file, source.cwd);
  }
  if (values.check) {
    const { sourceProblems } = await import("./sources/check-sources.ts");
    const problems = await sourceProblems(config.sources);
    if (problems.length > 0) throw new ConfigError(file, problems);
    exit(0, `${file} is good\n`);
  }
  const log = createLog("agent", config.log, journalSink(process.env));
  const service = new ServiceManager({ environment: process.env, log });
  service.starting();
  const { Agent } = await import("./agent.ts");
  const agent = new Agent({
    config,
    dataDir: fromConfigFile(file, config.dataDir),
    clock: systemClock,
    ...(process.platform === "linux" && { time: (await import("./time/device-time.ts")).deviceTime() }),
    log,
    metrics: new Metrics(),
    environment: process.env,
    onFailure: (error) => {
      log.error({ error: describeError(error) }, "the agent cannot go on; it must be started again");
      void Promise.race([agent.close(), pause(FAILED_CLOSE_MS)]).finally(() => process.exit(1));
    },
  });
  closeOnExit(() => {
    service.stopping();
    return agent.close();
  }, log);
  await agent.start();
  service.ready({ status: `device ${config.device}`, probe: () => agent.probe() });
  process.send?.({ type: "ready", addresses: { http: `http://${config.http.host}:${agent.httpPort}` } });
}

main().catch((error: unknown) => {
  process.stderr.write(`${describeError(error)}\n`);
  process.exit(error instanceof ConfigError ? 2 : 1);
});
