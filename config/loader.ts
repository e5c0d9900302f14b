/** Reads a YAML file, fills in `${ENV}`, checks it against a schema, and says what is wrong and where. */
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import type { z } from "zod";
import { HeadwaterError } from "../runtime/errors.ts";
import { describeIssues, explain, misread, pathText } from "./mistakes.ts";

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
  const filled = new Set<string>();
  let raw: unknown;
  try {
    raw = substitute(document.toJS({ maxAliasCount: 20 }) ?? {}, { environment, missing, filled });
  } catch {
    // Its own words may show what stands there.
    throw new ConfigError(file, ["what its aliases (*) stand for is used too often, or holds itself"]);
  }
  if (missing.length > 0) throw new ConfigError(file, missing);
  let result = schema.safeParse(raw, { error: explain });
  if (!result.success && readAsNumbers(raw, result.error.issues, filled))
    result = schema.safeParse(raw, { error: explain });
  if (!result.success) throw new ConfigError(file, describeIssues(result.error.issues, document));
  return result.data;
}

/** A path of the config, taken from the config file's own folder. */
export function fromConfigFile(configFile: string, path: string): string {
  return isAbsolute(path) ? path : resolve(dirname(configFile), path);
}

interface Substitution {
  readonly environment: NodeJS.ProcessEnv;
  /** What is said of variables that are not there. */
  readonly missing: string[];
  /** Paths of what was taken from the environment. */
  readonly filled: Set<string>;
}

function substitute(value: unknown, into: Substitution, path: readonly (string | number)[] = []): unknown {
  if (typeof value === "string") {
    return value.replace(
      /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
      (_, name: string, fallback?: string) => {
        const found = into.environment[name] ?? fallback;
        if (found === undefined) into.missing.push(`${pathText(path)}: the environment has no ${name}`);
        into.filled.add(pathText(path));
        return found ?? "";
      },
    );
  }
  if (Array.isArray(value)) return value.map((item, i) => substitute(item, into, [...path, i]));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, substitute(item, into, [...path, key])]),
    );
  }
  return value;
}

type Keys = Record<PropertyKey, unknown>;

/**
 * The environment holds text alone, of which only the schema knows whether a number or true and false is
 * meant: a password of digits stays text. True when something was read so, in place.
 */
function readAsNumbers(
  raw: unknown,
  issues: readonly z.core.$ZodIssue[],
  filled: ReadonlySet<string>,
): boolean {
  let isChanged = false;
  for (const issue of issues.flatMap(withinUnions)) {
    const { path } = issue;
    if (!filled.has(pathText(path))) continue;
    const holder = path.slice(0, -1).reduce((inner, part) => inner[part] as Keys, raw as Keys);
    const key = path.at(-1)!;
    const text = String(holder[key]).trim();
    const expected = issue.code === "invalid_type" ? issue.expected : undefined;
    const isTrue = issue.code === "invalid_value" && issue.values.includes(true) && text === "true";
    if (expected === "number" && /^-?\d+(\.\d+)?$/.test(text)) holder[key] = Number(text);
    else if (isTrue || (expected === "boolean" && /^(true|false)$/.test(text))) holder[key] = text === "true";
    else continue;
    isChanged = true;
  }
  return isChanged;
}

/** What each branch of a union finds wrong, by its whole path. */
function withinUnions(issue: z.core.$ZodIssue): z.core.$ZodIssue[] {
  if (issue.code !== "invalid_union") return [issue];
  return issue.errors
    .flat()
    .flatMap((inner) => withinUnions({ ...inner, path: [...issue.path, ...inner.path] } as z.core.$ZodIssue));
}
