/** Reads a YAML file, fills in `${ENV}`, checks it against a schema, and says what is wrong and where. */
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { HeadwaterError } from "../runtime/errors.ts";
import { describeIssues, explain, misread } from "./mistakes.ts";

const MAX_CONFIG_BYTES = 1_048_576;

/** Nothing was started. Programs end with exit code 2. */
export class ConfigError extends HeadwaterError {
  constructor(file: string, problems: readonly string[]) {
    super("CONFIG_INVALID", {
      message: `${file}:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
      hint: "docs/reference/config.md lists every key",
    });
  }
}

/** @param environment where `${NAME}` is looked up; `${NAME:-fallback}` gives a fallback */
export async function loadConfig<T extends z.ZodType>(
  file: string,
  schema: T,
  environment: NodeJS.ProcessEnv,
): Promise<z.infer<T>> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(file, [
      code === "ENOENT" ? "there is no such file" : `cannot be read: ${code ?? error}`,
    ]);
  }
  return parseConfig(file, text, schema, environment);
}

export function parseConfig<T extends z.ZodType>(
  file: string,
  text: string,
  schema: T,
  environment: NodeJS.ProcessEnv,
): z.infer<T> {
  if (text.length > MAX_CONFIG_BYTES)
    throw new ConfigError(file, [`is larger than ${MAX_CONFIG_BYTES} bytes`]);
  const lineCounter = new LineCounter();
  // Its pretty errors show the lines around, and a secret may stand there.
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: false, lineCounter });
  const misreadParts = misread(document, lineCounter);
  if (misreadParts.length > 0) throw new ConfigError(file, misreadParts);
  const missing: string[] = [];
  let raw: unknown;
  try {
    raw = substitute(document.toJS({ maxAliasCount: 20 }) ?? {}, environment, missing);
  } catch (error) {
    throw new ConfigError(file, [error instanceof Error ? error.message : String(error)]);
  }
  if (missing.length > 0) throw new ConfigError(file, missing);
  const result = schema.safeParse(raw, { error: explain });
  if (!result.success) throw new ConfigError(file, describeIssues(result.error.issues, document));
  return result.data;
}

/** A path of the config, taken from the config file's own folder. */
export function fromConfigFile(configFile: string, path: string): string {
  return isAbsolute(path) ? path : resolve(dirname(configFile), path);
}

function substitute(value: unknown, environment: NodeJS.ProcessEnv, missing: string[], path = ""): unknown {
  if (typeof value === "string") {
    return value.replace(
      /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
      (_, name: string, fallback?: string) => {
        const found = environment[name] ?? fallback;
        if (found === undefined) missing.push(`${path}: the environment has no ${name}`);
        return found ?? "";
      },
    );
  }
  if (Array.isArray(value))
    return value.map((item, i) => substitute(item, environment, missing, `${path}[${i}]`));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [
        key,
        substitute(item, environment, missing, path === "" ? key : `${path}.${key}`),
      ]),
    );
  }
  return value;
}
