#!/usr/bin/env node
/** headwater-agent: reads argv and the environment, starts the agent, and ends it on a signal. */
import "./small-heap.ts";
import { parseArgs } from "node:util";
import { agentConfig } from "../config/agent-config.ts";
import { ConfigError, fromConfigFile, loadConfig } from "../config/loader.ts";
import { pause } from "../runtime/backoff.ts";
import { systemClock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import { createLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { closeOnExit } from "../runtime/shutdown.ts";
import { VERSION } from "../runtime/version.ts";

/** After a failure, the other parts have so long to end. */
const FAILED_CLOSE_MS = 3_000;

const HELP = `headwater-agent: stores what sensors and cameras say, and brings it to the gateway

  --config FILE   the config, such as agent.yaml
  --check         read the config, say what is wrong with it, and end
  --version       print the version
  --help          print this

Exit: 0 it ended as asked, 1 it failed, 2 the config or the command line is wrong.
`;

function readArguments(): { config?: string; check?: boolean; help?: boolean; version?: boolean } {
  try {
    return parseArgs({
      options: {
        config: { type: "string" },
        check: { type: "boolean" },
        help: { type: "boolean" },
        version: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    return exit(2, `${error instanceof Error ? error.message : error}\n\n${HELP}`);
  }
}

function exit(code: number, message: string): never {
  (code === 0 ? process.stdout : process.stderr).write(message);
  process.exit(code);
}

async function main(): Promise<void> {
  const values = readArguments();
  if (values.help) exit(0, HELP);
  if (values.version) exit(0, `${VERSION}\n`);
  if (values.config === undefined) exit(2, `--config FILE is missing\n\n${HELP}`);
  const file = values.config;
  const config = await loadConfig(file, agentConfig, process.env);
  for (const source of config.sources) {
    if (source.type === "serial") source.path = fromConfigFile(file, source.path);
  }
  if (values.check) exit(0, `${file} is good\n`);
  const log = createLog("agent", config.log);
  const { Agent } = await import("./agent.ts");
  const agent = new Agent({
    config,
    dataDir: fromConfigFile(file, config.dataDir),
    clock: systemClock,
    log,
    metrics: new Metrics(),
    onFailure: (error) => {
      log.error({ error: describeError(error) }, "the agent cannot go on; it must be started again");
      void Promise.race([agent.close(), pause(FAILED_CLOSE_MS)]).finally(() => process.exit(1));
    },
  });
  closeOnExit(() => agent.close(), log);
  await agent.start();
  process.send?.({ type: "ready", addresses: { http: `http://${config.http.host}:${agent.httpPort}` } });
}

main().catch((error: unknown) => {
  process.stderr.write(`${describeError(error)}\n`);
  process.exit(error instanceof ConfigError ? 2 : 1);
});
