/** Reads a YAML file, fills in `${ENV}`, checks it against a schema, and says what is wrong and where. */
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, resolve } from "node:path";
import { type Document, LineCounter, parseDocument } from "yaml";
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
  const text = await readConfigText(file);
  if (text === undefined) throw new ConfigError(file, ["there is no such file"]);
  return parseConfig(file, text, schema, environment);
}

/**
 * Undefined when there is no such file.
 * @throws ConfigError when it cannot be read, or is not in UTF-8
 */
export async function readConfigText(file: string): Promise<string | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new ConfigError(file, [`cannot be read: ${code ?? error}`]);
  }
  // Decoding would put the same character for all that it does not know, in passwords too.
  if (!isUtf8(bytes)) throw new ConfigError(file, ["is not in UTF-8; have the editor save it so"]);
  return bytes.toString();
}

export function parseConfig<T extends z.ZodType>(
  file: string,
  text: string,
  schema: T,
  environment: NodeJS.ProcessEnv,
): z.infer<T> {
  return check(file, readYaml(file, text), schema, environment);
}

/**
 * As `parseConfig` does it, of what was taken out of a config; what is wrong is told without a line, as its
 * place in the file is not known any more.
 * @param part as it would stand in JSON
 */
export function parsePart<T extends z.ZodType>(
  file: string,
  part: object,
  schema: T,
  environment: NodeJS.ProcessEnv,
): z.infer<T> {
  return check(file, { document: parseYaml(file, JSON.stringify(part)) }, schema, environment);
}

interface Read {
  readonly document: Document.Parsed;
  readonly lineCounter?: LineCounter;
}

function check<T extends z.ZodType>(
  file: string,
  { document, lineCounter }: Read,
  schema: T,
  environment: NodeJS.ProcessEnv,
): z.infer<T> {
  const problems: string[] = [];
  const filled = new Set<string>();
  let raw: unknown;
  try {
    raw = substitute(document.toJS({ maxAliasCount: 20 }) ?? {}, { environment, problems, filled });
  } catch {
    // Its own words may show what stands there.
    throw new ConfigError(file, ["what its aliases (*) stand for is used too often, or holds itself"]);
  }
  if (problems.length > 0) throw new ConfigError(file, problems);
  let result = schema.safeParse(raw, { error: explain });
  if (!result.success && readAsNumbers(raw, result.error.issues, filled))
    result = schema.safeParse(raw, { error: explain });
  if (!result.success)
    throw new ConfigError(file, describeIssues(result.error.issues, { document, lineCounter, raw, filled }));
  return result.data;
}

/** @throws ConfigError when it is too large or no YAML; without a piece of it, as a secret may stand there */
export function parseYaml(file: string, text: string): Document.Parsed {
  return readYaml(file, text).document;
}

function readYaml(file: string, text: string): Required<Read> {
  if (text.length > MAX_CONFIG_BYTES)
    throw new ConfigError(file, [`is larger than ${MAX_CONFIG_BYTES} bytes`]);
  const lineCounter = new LineCounter();
  // Its pretty errors show the lines around.
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: false, lineCounter });
  const misreadParts = misread(document, lineCounter);
  if (misreadParts.length > 0) throw new ConfigError(file, misreadParts);
  return { document, lineCounter };
}

/** A path of the config, taken from the config file's own folder. */
export function fromConfigFile(configFile: string, path: string): string {
  return isAbsolute(path) ? path : resolve(dirname(configFile), path);
}

interface Substitution {
  readonly environment: NodeJS.ProcessEnv;
  /** What is said of variables that are not there, or whose fallback is none. */
  readonly problems: string[];
  /** Paths of what was taken from the environment. */
  readonly filled: Set<string>;
}

function substitute(value: unknown, into: Substitution, path: readonly (string | number)[] = []): unknown {
  if (typeof value === "string") {
    return value.replace(
      /\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g,
      (_, name: string, fallback?: string) => {
        const found = into.environment[name] ?? fallback;
        // A fallback ends at the first }: the rest of one within it would be left in the value.
        if (fallback?.includes("${"))
          into.problems.push(`${pathText(path)}: the fallback of ${name} is text, without a \${ in it`);
        else if (found === undefined) into.problems.push(`${pathText(path)}: the environment has no ${name}`);
        // What Node put there for bytes that it could not decode.
        else if (found !== fallback && found.includes("\ufffd"))
          into.problems.push(`${pathText(path)}: what the environment has as ${name} is not in UTF-8`);
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
