#!/usr/bin/env node
/** The gateway's program: reads argv and the environment, starts, says when it is ready, ends cleanly. */
import { dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import { gatewayConfig } from "../config/gateway-config.ts";
import { ConfigError, loadConfig } from "../config/loader.ts";
import { systemClock } from "../runtime/clock.ts";
import { withCredentials } from "../runtime/credentials.ts";
import { describeError } from "../runtime/errors.ts";
import { journalSink } from "../runtime/journal.ts";
import { createLog } from "../runtime/log.ts";
import { Metrics } from "../runtime/metrics.ts";
import { ServiceManager } from "../runtime/service-manager.ts";
import { closeOnExit } from "../runtime/shutdown.ts";
import { VERSION } from "../runtime/version.ts";
import { streamsOfStatement } from "./analytics/open-analytics.ts";
import { startGateway } from "./gateway.ts";
import { verifyDataFolder } from "./verify.ts";

const USAGE = `headwater-gateway ${VERSION}: receives what agents send, keeps it, delivers, computes, shows

  headwater-gateway --config FILE            run
  headwater-gateway --config FILE --check    say whether the config is good, and end
  headwater-gateway --verify DIR             check the streams of a stopped gateway's dataDir, and end:
                                             0 sound, 1 damaged, 2 in use or no such folder
  headwater-gateway devices list|token NAME|revoke NAME|give CAMERA NAME --config FILE
                                             ask the running gateway about devices that join it
  headwater-gateway --version | --help

Exit: 0 it ended as asked, 1 it failed, 2 the config or the command line is wrong.
`;

const options = {
  config: { type: "string" },
  check: { type: "boolean" },
  verify: { type: "string" },
  help: { type: "boolean" },
  version: { type: "boolean" },
} as const;

interface Arguments {
  config?: string;
  check?: boolean;
  verify?: string;
  help?: boolean;
  version?: boolean;
}

function readArguments(): Arguments {
  try {
    return parseArgs({ options, strict: true }).values;
  } catch (error) {
    return refuse(`${describeError(error)}\n\n${USAGE}`);
  }
}

/** The command line or the config is wrong. */
function refuse(problem: string): never {
  process.stderr.write(`${problem.trimEnd()}\n`);
  process.exit(2);
}

async function devices(args: readonly string[]): Promise<void> {
  const { runDevices } = await import("./devices-command.ts");
  process.exitCode = await runDevices({
    args,
    dataDirOf: async (file) => {
      const config = await loadConfig(resolve(file), gatewayConfig, await withCredentials(process.env));
      return resolve(dirname(resolve(file)), config.dataDir);
    },
    write: (text) => process.stdout.write(text),
    complain: (text) => process.stderr.write(text),
  });
}

async function main(): Promise<void> {
  if (process.argv[2] === "devices") return devices(process.argv.slice(3));
  const values = readArguments();
  if (values.help) return void process.stdout.write(USAGE);
  if (values.version) return void process.stdout.write(`${VERSION}\n`);
  if (values.verify !== undefined) {
    const sound = await verifyDataFolder(values.verify, (line) => process.stdout.write(`${line}\n`));
    process.exitCode = sound ? 0 : 1;
    return;
  }
  if (values.config === undefined) return refuse(`--config FILE is missing\n\n${USAGE}`);
  const file = resolve(values.config);
  const config = await loadConfig(file, gatewayConfig, await withCredentials(process.env));
  // What would be refused at the start is refused before anything is opened.
  const sqlStreams = config.analytics.map(streamsOfStatement);
  if (values.check) {
    const { checkConfig } = await import("./check-config.ts");
    const nowMs = systemClock.nowUs() / 1_000;
    const found = await checkConfig(config, { configDir: dirname(file), sqlStreams, nowMs });
    for (const warning of found.warnings) process.stderr.write(`${warning}\n`);
    if (found.problems.length > 0) throw new ConfigError(file, found.problems);
    return void process.stdout.write(`${values.config} is good\n`);
  }

  const log = createLog("gateway", config.log, journalSink(process.env));
  const service = new ServiceManager({ environment: process.env, log });
  service.starting();
  try {
    const metrics = new Metrics();
    metrics.watchProcess();
    const gateway = await startGateway(config, {
      configDir: dirname(file),
      clock: systemClock,
      log,
      metrics,
    });
    closeOnExit(() => {
      service.stopping();
      return gateway.close();
    }, log);
    const { http, mqtt, rtsp } = gateway.addresses;
    service.ready({ status: `${http} ${mqtt} ${rtsp}`, probe: () => gateway.probe() });
    log.info({ version: VERSION, ...gateway.addresses }, "ready");
    // Only a parent that forked us hears the link: it is a secret, so it is in no log.
    process.send?.({ type: "ready", signInUrl: gateway.signInUrl(), addresses: gateway.addresses });
  } catch (error) {
    log.error({ error: describeError(error) }, "not started");
    process.exit(1);
  }
}

main().catch((error: unknown) => refuse(describeError(error)));
