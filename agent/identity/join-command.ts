/**
 * `headwater-agent join GATEWAY TOKEN`: the terminal's side of joining, and the config that follows from it.
 * A config that is there keeps its comments and all else that it says; one that is missing is made.
 */
import { chown, realpath, stat } from "node:fs/promises";
import { parseArgs } from "node:util";
import { type Document, isMap, parseDocument } from "yaml";
import { agentConfig } from "../../config/agent-config.ts";
import { ConfigError, fromConfigFile, parsePart, parseYaml, readConfigText } from "../../config/loader.ts";
import { parseToken } from "../../protocol/joining.ts";
import type { Clock } from "../../runtime/clock.ts";
import { writeDurably } from "../../runtime/durable.ts";
import { describeError } from "../../runtime/errors.ts";
import { parseAddress } from "./gateway-address.ts";
import { type GatewayUrls, joinGateway } from "./join.ts";

const USAGE = `headwater-agent join GATEWAY TOKEN [--config FILE]

  GATEWAY   its name or address, with :PORT where it is not 8443
  TOKEN     what \`headwater-gateway devices token NAME\` printed; - reads it from standard input
  --config  the agent's config, agent.yaml unless given; made when it is missing
`;
const UNIT = "headwater-agent.service";
const NEW_CONFIG = `# Made by headwater-agent join. docs/reference/config.md has every key, docs/guide/sources.md has sources.
dataDir: data
sources:
  - { name: local, type: mqtt, host: 127.0.0.1, port: 1884, stream: sensors }
`;

export interface JoinCommand {
  /** Behind `join`. */
  readonly args: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  readonly clock: Clock;
  readonly readInput: () => Promise<string>;
  readonly write: (text: string) => void;
  readonly complain: (text: string) => void;
}

/** The exit code: 0 joined, 1 not, 2 the command line or the config is wrong. */
export async function runJoin(command: JoinCommand): Promise<number> {
  const { clock, environment, write, complain } = command;
  let values: { config?: string | undefined; help?: boolean | undefined };
  let positionals: string[];
  try {
    ({ values, positionals } = parseArgs({
      args: [...command.args],
      allowPositionals: true,
      options: { config: { type: "string" }, help: { type: "boolean" } },
    }));
  } catch (error) {
    complain(`${describeError(error)}\n\n${USAGE}`);
    return 2;
  }
  if (values.help) {
    write(USAGE);
    return 0;
  }
  const [gateway, tokenText, ...more] = positionals;
  if (gateway === undefined || tokenText === undefined || more.length > 0) {
    complain(USAGE);
    return 2;
  }
  const file = values.config ?? "agent.yaml";
  try {
    const address = parseAddress(gateway);
    const token = parseToken(tokenText === "-" ? await command.readInput() : tokenText);
    const kept = await readConfigText(file);
    const text = kept ?? NEW_CONFIG;
    // What can be wrong with these parts is found before the token is spent.
    const config = parsePart(file, ourPart(text, token.device), agentConfig, environment);
    const dataDir = fromConfigFile(file, config.dataDir);
    const configure = async (device: string, urls: GatewayUrls): Promise<void> => {
      await writeLike(file, changed(text, device, urls));
      write(`${file} ${kept === undefined ? "made" : "now names this device and its gateway"}\n`);
    };
    await joinGateway({ address, token, dataDir, clock, configure, report: (line) => write(`${line}\n`) });
    write(`${await nextStep(file)}\n`);
    return 0;
  } catch (error) {
    complain(`${describeError(error)}\n`);
    return error instanceof ConfigError ? 2 : 1;
  }
}

/** The running agent, if there is one, has read its config already. */
async function nextStep(file: string): Promise<string> {
  const units = ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"];
  const found = await Promise.all(units.map((folder) => stat(`${folder}/${UNIT}`).catch(() => undefined)));
  return found.some((unit) => unit !== undefined)
    ? `next: systemctl enable ${UNIT} && systemctl restart ${UNIT}`
    : `next: headwater-agent --config ${file} (one that runs already must be started again)`;
}

const placeholders: GatewayUrls = {
  https: "https://gateway:1",
  mqtt: "mqtts://gateway:1",
  rtsp: "rtsps://gateway:1",
};

/** As it was, to whoever it belongs: it may hold passwords. */
async function writeLike(file: string, text: string): Promise<void> {
  const path = await realpath(file).catch(() => file);
  const former = await stat(path).catch(() => undefined);
  await writeDurably(path, text, former === undefined ? 0o600 : former.mode & 0o777);
  if (former !== undefined && process.getuid?.() === 0) await chown(path, former.uid, former.gid);
}

/** What joining needs of a config: the rest may name secrets that only the service is given. */
function ourPart(text: string, device: string): object {
  const document: Document = parseDocument(changed(text, device, placeholders));
  const ours = ["device", "gateway", "dataDir"];
  return Object.fromEntries(ours.map((key) => [key, document.toJS()[key]]));
}

/** The config's text with the device's name and the gateway's addresses in it. */
export function changed(text: string, device: string, { https, mqtt, rtsp }: GatewayUrls): string {
  const document: Document = parseYaml("the config", text);
  document.set("device", device);
  if (!isMap(document.get("gateway"))) document.set("gateway", document.createNode({}));
  document.setIn(["gateway", "https"], https);
  document.setIn(["gateway", "mqtt"], mqtt);
  document.setIn(["gateway", "rtsp"], rtsp);
  // The certificate takes its place.
  document.deleteIn(["gateway", "password"]);
  return document.toString({ lineWidth: 0 });
}
