/**
 * What is wrong in a config, in the words of the one who wrote it: what stands there, what would be
 * accepted. Never shows a value that may be a secret, nor a piece of the file.
 */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  type LineCounter,
  type ParsedNode,
  visit,
  type YAMLError,
} from "yaml";
import type { z } from "zod";
import { nearWord } from "./near-word.ts";

const QUOTES = "text with special characters needs quotes around it";

/** By yaml's codes, as its own messages show what stands there, which may be a secret. */
const MISREAD: Readonly<Partial<Record<YAMLError["code"], string>>> = {
  BAD_ALIAS: "text that begins with * needs quotes around it",
  BAD_DQ_ESCAPE: "in \"…\" a \\ is written twice; in '…' once",
  BAD_INDENT:
    "this line is indented differently from those that it belongs to, or a bracket before it is still open (an unquoted # begins a comment)",
  BAD_SCALAR_START: "text that begins with this character needs quotes around it",
  BLOCK_AS_IMPLICIT_KEY: `this line is indented differently from those that it belongs to, or holds a second colon; ${QUOTES}`,
  DUPLICATE_KEY: "this key is there twice",
  MISSING_CHAR:
    "something is missing before this place: a space behind a colon, the colon, the - of a list, a quote or a bracket",
  MULTILINE_IMPLICIT_KEY:
    "this line is indented differently from those that it belongs to, or lacks its colon",
  MULTIPLE_DOCS: "a line --- begins a second config; one file holds one",
  TAB_AS_INDENT: "a tab indents this line; use spaces",
  TAG_RESOLVE_FAILED: "text that begins with ! needs quotes around it",
};

/** Keys whose values are secrets: a part of one that is taken for a comment would be missed only at the sign-in. */
const SECRETS: ReadonlySet<unknown> = new Set(["password", "secret", "tokens"]);

/** Each costs a look at all of them. */
const MAX_ALIASES = 1_000;
/** Whoever has mended so many reads it again. */
const MAX_PROBLEMS = 100;

/** What no YAML is, or would silently be something else than was meant; with the place of each. */
export function misread(document: Document.Parsed, lineCounter: LineCounter): string[] {
  const problems: string[] = [];
  const report = (offset: number, what: string): void => {
    if (problems.length === MAX_PROBLEMS) return;
    const { line, col } = lineCounter.linePos(offset);
    const text = `line ${line}, column ${col}: ${what}`;
    if (!problems.includes(text)) problems.push(text);
  };
  for (const { pos, code } of [...document.errors, ...document.warnings])
    report(pos[0], MISREAD[code] ?? `this is no YAML; ${QUOTES}`);
  if (problems.length > 0) return problems;
  const anchors = new Set<string | undefined>();
  let aliases = 0;
  visit(document, {
    Value: (_, { anchor }) => void anchors.add(anchor),
    Alias: (_, { source, range }) => {
      if (!anchors.has(source)) report(range?.[0] ?? 0, MISREAD.BAD_ALIAS!);
      if (++aliases === MAX_ALIASES) report(range?.[0] ?? 0, `more than ${MAX_ALIASES - 1} aliases (*)`);
    },
    Pair: (_, { key, value }) => {
      // Such as {{ password }}, which nobody has filled in; yaml would show it in a warning of its own.
      if (isNode(key) && !isScalar(key))
        report(key.range?.[0] ?? 0, `a key is a word, no list, group or alias; ${QUOTES}`);
      if (!isScalar(key) || !SECRETS.has(key.value) || !isScalar(value)) return;
      const { comment, range } = value;
      // "abc #def" is abc and a comment; people who comment leave a space.
      if (typeof comment === "string" && /^\S/.test(comment) && value.type === "PLAIN")
        report(range?.[1] ?? 0, "what stands behind # is a comment; put the whole secret in quotes");
    },
  });
  return problems;
}

/** Zod's hook for messages: undefined leaves its own. */
export function explain(issue: z.core.$ZodRawIssue): string | undefined {
  const { input } = issue;
  switch (issue.code) {
    case "invalid_type":
      return `is ${isNumber(issue.expected) && typeof input === "number" ? input : what(input)}; ${wanted(issue.expected)}`;
    case "invalid_value":
      return `write ${listed(issue.values.map(String))}`;
    case "too_small":
      if (issue.origin === "string" || issue.origin === "array")
        return amount("at least", issue.minimum, issue);
      return `is ${input}; at least ${issue.minimum}`;
    case "too_big":
      if (issue.origin === "string" || issue.origin === "array")
        return amount("at most", issue.maximum, issue);
      return `is ${input}; at most ${issue.maximum}`;
    case "unrecognized_keys": {
      const { shape } = (issue.inst as z.core.$ZodObject | undefined)?._zod.def ?? {};
      // Those that there are; the keys that are not have a line each, made below.
      return Object.keys(shape ?? {}).join(", ");
    }
    case "invalid_union":
      // By its `type`; of the others each branch says what it finds.
      return Array.isArray(issue.options) ? `write ${listed(issue.options.map(String))}` : undefined;
    default:
      return undefined;
  }
}

function isNumber(expected: string): boolean {
  return expected === "number" || expected === "int";
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

function amount(bound: string, count: number | bigint, { origin }: { origin: string }): string {
  if (count === 1 && bound === "at least") return "is empty";
  return `${bound} ${count} ${origin === "string" ? "characters" : "entries"}`;
}

function wanted(expected: string): string {
  switch (expected) {
    case "string":
      return "text is needed, digits alone in quotes";
    case "number":
      return "a number is needed, without quotes and unit";
    case "int":
      return "a whole number is needed";
    case "boolean":
      return "true or false is needed";
    case "array":
      return "a list is needed: [a, b], or lines that begin with -";
    default:
      return "keys are needed: { key: value }, or indented lines below";
  }
}

function what(input: unknown): string {
  if (input === undefined) return "missing";
  if (input === null) return "empty";
  if (Array.isArray(input)) return "a list";
  if (typeof input === "object") return "a group of keys";
  return typeof input === "string" ? "text" : typeof input === "number" ? "a number" : "true or false";
}

/** `sources[2].shape.filter` */
export function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((part, i) => (typeof part === "number" ? `[${part}]` : `${i === 0 ? "" : "."}${String(part)}`))
    .join("");
}

/** A config as it was written, and as it was read. */
export interface Written {
  readonly document: Document.Parsed;
  /** Without it nothing is told with its line. */
  readonly lineCounter: LineCounter | undefined;
  /** What the document says, with the environment filled in. */
  readonly raw: unknown;
  /** Paths of what the environment gave: it is not repeated as a wrong word, as it may be a secret. */
  readonly filled: ReadonlySet<string>;
}

/** One line for each thing that is wrong: the line of the file, the path, what is there and what would be accepted. */
export function describeIssues(issues: readonly z.core.$ZodIssue[], written: Written): string[] {
  return [...new Set(issues.flatMap((issue) => describeIssue(issue, written)))];
}

function describeIssue(issue: z.core.$ZodIssue, written: Written): string[] {
  const { path } = issue;
  const place = placeOf(path, written);
  if (issue.code === "unrecognized_keys") {
    const within = written.document.getIn(path, true);
    const known = issue.message === "" ? [] : issue.message.split(", ");
    return issue.keys.map(
      (key) => `${placeOf(path, written, key)}: ${unknownKey(key, known, within as ParsedNode)}`,
    );
  }
  if (issue.code === "invalid_value" || (issue.code === "invalid_union" && "options" in issue))
    return [`${place}: ${otherWord(issue, written)}`];
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return [`${place}: ${issue.message}`];
  const inner = issue.errors.flat();
  // Whoever wrote something inside meant the branch that has it.
  const deeper = inner.filter((one) => one.path.length > 0 || one.code === "unrecognized_keys");
  if (deeper.length > 0)
    return deeper.flatMap((one) =>
      describeIssue({ ...one, path: [...path, ...one.path] } as z.core.$ZodIssue, written),
    );
  // What would be accepted as it stands comes last: `store: keys are needed …; or write local`.
  const [literals, others] = [true, false].map((isLiteral) =>
    inner.filter(({ code }) => (code === "invalid_value") === isLiteral),
  ) as [typeof inner, typeof inner];
  const said = new Set([...others, ...literals].map(({ message }) => message));
  return [`${place}: ${[...said].join("; or ")}`];
}

/** `line 7: sources[2].type`; without a line where the file has none for it. */
function placeOf(path: readonly PropertyKey[], written: Written, key?: string): string {
  const line = lineOf(key === undefined ? path : [...path, key], written);
  return `${line === undefined ? "" : `line ${line}: `}${path.length === 0 ? "(top)" : pathText(path)}`;
}

/** Of what stands at the path, or of the innermost around it that is there. */
function lineOf(path: readonly PropertyKey[], { document, lineCounter }: Written): number | undefined {
  let offset: number | undefined;
  let node: unknown = document.contents;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
      if (pair === undefined) break;
      offset = isNode(pair.key) ? pair.key.range?.[0] : offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(part)];
      if (!isNode(node)) break;
      offset = node.range?.[0] ?? offset;
    } else break;
  }
  return offset === undefined ? undefined : lineCounter?.linePos(offset).line;
}

/** What may be one of a few words, and is another. */
function otherWord(issue: z.core.$ZodIssue, { raw, filled }: Written): string {
  const { path, message } = issue;
  let value: unknown = raw;
  for (const part of path) value = (value as Record<PropertyKey, unknown> | null | undefined)?.[part];
  const isShown =
    !filled.has(pathText(path)) &&
    (typeof value === "number" ||
      typeof value === "boolean" ||
      (typeof value === "string" && value.length <= 40));
  if (typeof value !== "string" || !isShown) return `is ${isShown ? value : what(value)}; ${message}`;
  const words = issue.code === "invalid_value" ? issue.values : (issue as { options?: unknown[] }).options;
  return `is ${JSON.stringify(value)}; ${message}${question(value, (words ?? []).map(String))}`;
}

function question(word: string, words: readonly string[]): string {
  const near = nearWord(word, words);
  return near === undefined ? "" : `; did you mean ${near}?`;
}

/** In `{ password:abc, def }` a secret stands where a key should be. */
function unknownKey(key: string, known: readonly string[], within: ParsedNode | undefined): string {
  const thereAre = known.length === 0 ? "" : `; there are ${known.join(", ")}`;
  const colon = key.indexOf(":");
  if (colon >= 0)
    return `there is no space behind the colon of ${JSON.stringify(key.slice(0, colon))}${thereAre}`;
  const isFlow = isMap(within) && within.flow === true;
  const value = isMap(within) ? within.get(key) : undefined;
  if (isFlow && (value === null || value === undefined))
    return `a word between commas that is no key with a value; ${QUOTES}${thereAre}`;
  return `unknown key ${JSON.stringify(key)}${thereAre}${question(key, known)}`;
}
