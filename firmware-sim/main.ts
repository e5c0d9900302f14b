#!/usr/bin/env node
/** headwater-sim: simulated boards, sensors and cameras. Reads the command line and the environment; runs the Simulator. */
import { parseArgs } from "node:util";
import { fromConfigFile, loadConfig } from "../config/loader.ts";
import { type SimConfig, simConfig } from "../config/sim-config.ts";
import { systemClock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import { createLog } from "../runtime/log.ts";
import { closeOnExit } from "../runtime/shutdown.ts";
import { VERSION } from "../runtime/version.ts";
import { Simulator } from "./simulator.ts";

const HELP = `headwater-sim ${VERSION}: simulated boards, sensors and cameras for Headwater

  headwater-sim --config FILE           run until SIGINT or SIGTERM
  headwater-sim --config FILE --check   only check the config; exit code 2 if it is bad
  headwater-sim --help | --version

What is really sent is written to dataDir as NDJSON. Faults on request:
  curl -d '{"fault": "unplug-board"}' http://127.0.0.1:8082/faults
  (plug-board, garbage-board, silence-sensor, stall-camera, resume-camera)
`;

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

function end(code: number, text: string): never {
  (code === 0 ? process.stdout : process.stderr).write(`${text.trimEnd()}\n`);
  process.exit(code);
}

function readArguments(): { file: string; check: boolean } {
  let values: { config?: string; check?: boolean; help?: boolean; version?: boolean };
  try {
    ({ values } = parseArgs({
      options: {
        config: { type: "string" },
        check: { type: "boolean" },
        help: { type: "boolean" },
        version: { type: "boolean" },
      },
    }));
  } catch (error) {
    end(EXIT_USAGE, `${describeError(error)}\n\n${HELP}`);
  }
  if (values.help) end(0, HELP);
  if (values.version) end(0, VERSION);
  if (values.config === undefined) end(EXIT_USAGE, `--config FILE is missing\n\n${HELP}`);
  return { file: values.config, check: values.check ?? false };
}

async function readConfig(file: string): Promise<SimConfig> {
  const config = await loadConfig(file, simConfig, process.env);
  return {
    ...config,
    dataDir: fromConfigFile(file, config.dataDir),
    ...(config.board && { board: { ...config.board, path: fromConfigFile(file, config.board.path) } }),
  };
}

const { file, check } = readArguments();
const config = await readConfig(file).catch((error: unknown) => end(EXIT_USAGE, describeError(error)));
if (check) end(0, `${file} is good`);

const log = createLog("sim", config.log);
const simulator = new Simulator({ config, clock: systemClock, log });
closeOnExit(() => simulator.close(), log);
try {
  await simulator.start();
  // Whoever forked us may wait for this.
  process.send?.({
    type: "ready",
    addresses: {
      control: `http://${config.control.host}:${simulator.controlPort}`,
      ...(simulator.cameraUrl && { camera: simulator.cameraUrl }),
    },
  });
  log.info({ controlPort: simulator.controlPort, sensors: simulator.sensorNames.length }, "running");
} catch (error) {
  log.error({ error: describeError(error) }, "could not start");
  process.exit(EXIT_FAILED);
}
