/**
 * `headwater-agent status`: asks the agent that runs on this machine how it is, over HTTP, as LevelDB
 * admits one process. Exit codes: 0 it does its work, 1 it does not, 2 it cannot be asked.
 */
import { existsSync } from "node:fs";
import { z } from "zod";
import { listen } from "../../config/fields.ts";
import { ConfigError, parsePart, parseYaml, readConfigText } from "../../config/loader.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import type { AgentStatus } from "./agent-status.ts";
import { present } from "./presentation.ts";
import { terminalText } from "./terminal.ts";

/** Where the Debian package keeps it. */
const INSTALLED_CONFIG = "/etc/headwater/agent.yaml";
const TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 4 * 1_048_576;

export interface StatusCommand {
  /** The running agent's; the installed one, or the defaults, unless given. */
  readonly config?: string | undefined;
  /** The answer as it came instead of a table. */
  readonly json: boolean;
  readonly coloured: boolean;
  readonly environment: NodeJS.ProcessEnv;
  readonly write: (text: string) => void;
  readonly complain: (text: string) => void;
}

/** No agent answers there, or what answers is none. */
export class AgentUnreachableError extends HeadwaterError {
  constructor(address: string, cause: unknown) {
    const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
    super("AGENT_UNREACHABLE", {
      retryable: true,
      message: `no agent answers at ${address}: ${inner instanceof Error ? inner.message : String(inner)}`,
      hint: "start it, or give --config FILE with the http.port that it uses",
      cause,
    });
  }
}

/** @returns the exit code */
export async function showStatus(command: StatusCommand): Promise<number> {
  try {
    const address = await addressOf(command.config, command.environment);
    const body = await ask(`${address}/status.json`);
    const status = JSON.parse(body) as AgentStatus;
    const text = command.json ? body : terminalText(present(status), command.coloured);
    const { state } = status.health;
    command.write(text);
    return state === "failing" ? 1 : 0;
  } catch (error) {
    command.complain(`${describeError(error)}\n`);
    return 2;
  }
}

/** Only `http` is read: an operator's shell does not have the secrets that the rest may need. */
export async function addressOf(
  file: string | undefined,
  environment: NodeJS.ProcessEnv,
  installed = INSTALLED_CONFIG,
): Promise<string> {
  const from = file ?? (existsSync(installed) ? installed : undefined);
  let http: unknown;
  if (from !== undefined) {
    const kept = await readConfigText(from);
    if (kept === undefined) throw new ConfigError(from, ["there is no such file"]);
    const config = parseYaml(from, kept).toJS({ maxAliasCount: 20 }) as { http?: unknown } | null;
    http = config?.http;
  }
  const schema = z.strictObject({ http: listen(8081, "Status page") });
  const part = http === undefined ? {} : { http };
  const { host, port } = parsePart(from ?? "defaults", part, schema, environment).http;
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

async function ask(url: string): Promise<string> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS), redirect: "error" });
    if (answer.status !== 200 || !/^application\/json/.test(answer.headers.get("content-type") ?? "")) {
      throw new Error(`it answered ${answer.status}`);
    }
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of answer.body ?? []) {
      text += decoder.decode(chunk as Uint8Array, { stream: true });
      if (text.length > MAX_ANSWER_BYTES) throw new Error("it answers too much");
    }
    if ((JSON.parse(text) as Partial<AgentStatus> | null)?.health?.state === undefined) {
      throw new Error("that is no agent's status");
    }
    return text;
  } catch (error) {
    throw new AgentUnreachableError(url.replace(/\/status\.json$/, ""), error);
  }
}
