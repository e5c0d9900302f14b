/**
 * What is wrong in a config, in the words of the one who wrote it: what stands there, what would be
 * accepted. Never shows a value that may be a secret, nor a piece of the file.
 */
import {
  type Document,
  isMap,
  isNode,
  isScalar,
  type LineCounter,
  type ParsedNode,
  visit,
  type YAMLError,
} from "yaml";
import type { z } from "zod";

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
      return `is ${what(input)}; ${wanted(issue.expected)}`;
    case "invalid_value":
      return `write ${listed(issue.values.map(String))}`;
    case "too_small":
      if (issue.origin === "string" || issue.origin === "array")
        return amount("at least", issue.minimum, issue);
      return `at least ${issue.minimum}`;
    case "too_big":
      if (issue.origin === "string" || issue.origin === "array")
        return amount("at most", issue.maximum, issue);
      return `at most ${issue.maximum}`;
    case "unrecognized_keys": {
      const { shape } = (issue.inst as z.core.$ZodObject | undefined)?._zod.def ?? {};
      return shape === undefined ? "" : `; there are ${Object.keys(shape).join(", ")}`;
    }
    default:
      return undefined;
  }
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

/** One line for each thing that is wrong, with the path to it. */
export function describeIssues(issues: readonly z.core.$ZodIssue[], document: Document.Parsed): string[] {
  return issues.flatMap((issue) => describeIssue(issue, document));
}

function describeIssue(issue: z.core.$ZodIssue, document: Document.Parsed): string[] {
  const { path } = issue;
  const at = pathText(path);
  const place = at === "" ? "(top)" : at;
  if (issue.code === "unrecognized_keys") {
    const within = document.getIn(path, true);
    return issue.keys.map((key) => `${place}: ${unknownKey(key, within as ParsedNode)}${issue.message}`);
  }
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return [`${place}: ${issue.message}`];
  const inner = issue.errors.flat();
  // Whoever wrote something inside meant the branch that has it.
  const deeper = inner.filter((one) => one.path.length > 0 || one.code === "unrecognized_keys");
  if (deeper.length > 0)
    return deeper.flatMap((one) =>
      describeIssue({ ...one, path: [...path, ...one.path] } as z.core.$ZodIssue, document),
    );
  // What would be accepted as it stands comes last: `store: keys are needed …; or write local`.
  const [literals, others] = [true, false].map((isLiteral) =>
    inner.filter(({ code }) => (code === "invalid_value") === isLiteral),
  ) as [typeof inner, typeof inner];
  return [`${place}: ${[...others, ...literals].map(({ message }) => message).join("; or ")}`];
}

/** In `{ password:abc, def }` a secret stands where a key should be. */
function unknownKey(key: string, within: ParsedNode | undefined): string {
  const colon = key.indexOf(":");
  if (colon >= 0) return `there is no space behind the colon of ${JSON.stringify(key.slice(0, colon))}`;
  const isFlow = isMap(within) && within.flow === true;
  const value = isMap(within) ? within.get(key) : undefined;
  if (isFlow && (value === null || value === undefined))
    return `a word between commas that is no key with a value; ${QUOTES}`;
  return `unknown key ${JSON.stringify(key)}`;
}
