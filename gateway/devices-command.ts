/**
 * `headwater-gateway devices list|token|revoke|give`: asks the gateway that runs, by the socket in its data
 * folder. So it must be started by the gateway's own user, or by root.
 */
import { request } from "node:http";
import { parseArgs } from "node:util";
import { describeError, HeadwaterError } from "../runtime/errors.ts";
import { controlSocketPath } from "./api/control-socket.ts";

const USAGE = `headwater-gateway devices list [--json] --config FILE             those that have joined
headwater-gateway devices token NAME [--hours N] --config FILE    a token with which NAME may join, once; 1 hour
headwater-gateway devices revoke NAME --config FILE               end its connections, and let it in no more
headwater-gateway devices give CAMERA NAME --config FILE          let NAME have a camera that was another device's
`;
/** How many names follow each verb. */
const NAMES: Readonly<Record<string, number>> = { list: 0, token: 1, revoke: 1, give: 2 };
const MAX_ANSWER_BYTES = 16 * 1_048_576;

/** No gateway listens at the socket. */
export class GatewayNotRunningError extends HeadwaterError {
  constructor(path: string, cause: NodeJS.ErrnoException) {
    const forbidden = cause.code === "EACCES";
    super("GATEWAY_NOT_RUNNING", {
      message: `${path}: ${forbidden ? "this user may not ask the gateway" : "no gateway listens there"}`,
      hint: forbidden
        ? "run it as the gateway's user, or as root"
        : "start the gateway, with tls in its config: devices join by TLS alone",
      cause,
    });
  }
}

export interface DevicesCommand {
  /** Behind `devices`. */
  readonly args: readonly string[];
  /** The data folder of a config file, absolute. */
  readonly dataDirOf: (configFile: string) => Promise<string>;
  readonly write: (text: string) => void;
  readonly complain: (text: string) => void;
}

interface Device {
  readonly device: string;
  readonly state: string;
  readonly connected: boolean;
  readonly joinedMs: number;
  readonly notAfterMs: number;
}

/** The exit code: 0 done, 1 refused, 2 the command line or the config is wrong. */
export async function runDevices({ args, dataDirOf, write, complain }: DevicesCommand): Promise<number> {
  let asked: ReturnType<typeof readArguments>;
  let path: string;
  if (args.includes("--help")) {
    write(USAGE);
    return 0;
  }
  try {
    asked = readArguments(args);
    path = controlSocketPath(await dataDirOf(asked.config));
  } catch (error) {
    complain(`${describeError(error)}\n\n${USAGE}`);
    return 2;
  }
  const { verb, names, hours, json } = asked;
  const name = names.at(-1);
  try {
    if (verb === "list") {
      const { devices } = (await ask(path, "GET", "/devices")) as { devices: Device[] };
      write(json ? `${JSON.stringify(devices)}\n` : table(devices));
    } else if (verb === "revoke") {
      await ask(path, "POST", "/devices/revoke", { device: name });
      write(`${name} is revoked\n`);
    } else if (verb === "give") {
      await ask(path, "POST", "/devices/give", { camera: names[0], device: name });
      write(`${names[0]} is a camera of ${name}\n`);
    } else {
      const seconds = Math.round(hours * 3_600);
      const { token, expiresMs } = (await ask(path, "POST", "/devices/token", { device: name, seconds })) as {
        token: string;
        expiresMs: number;
      };
      write(`${token}\n`);
      complain(`Good once, until ${moment(expiresMs)}. On the device: headwater-agent join GATEWAY TOKEN\n`);
    }
    return 0;
  } catch (error) {
    complain(`${describeError(error)}\n`);
    return 1;
  }
}

function readArguments(args: readonly string[]) {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { config: { type: "string" }, hours: { type: "string" }, json: { type: "boolean" } },
  });
  const [verb = "", ...names] = positionals;
  if (!Object.hasOwn(NAMES, verb) || names.length !== NAMES[verb])
    throw new Error("say list, token NAME, revoke NAME or give CAMERA NAME");
  if (values.config === undefined) throw new Error("--config FILE is missing");
  const hours = Number(values.hours ?? "1");
  if (!(hours > 0)) throw new Error("--hours is a number above 0");
  return { verb, names, hours, json: values.json ?? false, config: values.config };
}

function ask(socketPath: string, method: string, path: string, body?: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const asked = request({ socketPath, method, path, timeout: 10_000 }, (answer) => {
      const chunks: Buffer[] = [];
      let total = 0;
      answer.on("data", (chunk: Buffer) => {
        total += chunk.length;
        if (total > MAX_ANSWER_BYTES) asked.destroy(new Error("the answer is too long"));
        else chunks.push(chunk);
      });
      answer.on("end", () => {
        const value = JSON.parse(Buffer.concat(chunks).toString("utf8")) as {
          error?: { code: string; message: string; hint?: string };
        };
        const { error } = value;
        if (error === undefined) resolve(value);
        else reject(new HeadwaterError(error.code, error));
      });
    });
    asked.on("timeout", () => asked.destroy(new Error("the gateway did not answer within 10 s")));
    asked.on("error", (error: NodeJS.ErrnoException) => {
      const absent = ["ENOENT", "ECONNREFUSED", "EACCES"].includes(error.code ?? "");
      reject(absent ? new GatewayNotRunningError(socketPath, error) : error);
    });
    asked.end(bytes);
  });
}

function table(devices: readonly Device[]): string {
  if (devices.length === 0) return "no device has joined\n";
  const rows = devices.map((one) => [
    one.device,
    one.state === "revoked" ? "revoked" : one.connected ? "connected" : "away",
    moment(one.joinedMs),
    one.state === "revoked" ? "-" : moment(one.notAfterMs),
  ]);
  const all = [["DEVICE", "STATE", "JOINED", "CERTIFICATE UNTIL"], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

/** UTC, to the minute. */
function moment(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
