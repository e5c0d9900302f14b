/**
 * Paths with `*` (any characters of one name), `?` (one) and `[abc]` (one of these). As in a shell, what
 * begins with a dot is matched only by a pattern that does, and no wildcard matches a slash.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";

const WILD = /[*?[]/;

export interface Matches {
  /** Sorted. */
  readonly paths: readonly string[];
  /** There would have been more. */
  readonly cut: boolean;
}

export function isPattern(path: string): boolean {
  return WILD.test(path);
}

/** The folder below which all that matches lies. */
export function fixedFolder(pattern: string): string {
  const parts = pattern.split("/");
  const at = parts.findIndex((part) => WILD.test(part));
  return parts.slice(0, at < 0 ? -1 : at).join("/") || "/";
}

/** What is there and matches. Folders that are missing or closed to us match nothing. @param pattern absolute */
export async function matchingPaths(pattern: string, maxPaths: number): Promise<Matches> {
  let found = ["/"];
  let cut = false;
  const parts = pattern.split("/").filter((part) => part !== "");
  for (const [i, part] of parts.entries()) {
    if (!WILD.test(part)) {
      found = found.map((folder) => join(folder, part));
      continue;
    }
    const name = nameMatcher(part);
    const deeper: string[] = [];
    for (const folder of found) {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
      for (const entry of entries) {
        // A link may lead to what is wanted.
        const wanted = i < parts.length - 1 ? !entry.isFile() : !entry.isDirectory();
        if (wanted && name(entry.name)) deeper.push(join(folder, entry.name));
      }
    }
    deeper.sort();
    cut ||= deeper.length > maxPaths;
    found = deeper.slice(0, maxPaths);
  }
  return { paths: found, cut };
}

/** For one name, without slashes. Its time grows with the name, not with what could be tried. */
export function nameMatcher(pattern: string): (name: string) => boolean {
  const tokens = tokensOf(pattern);
  const dotted = pattern.startsWith(".");
  return (name) => (dotted || !name.startsWith(".")) && matches(tokens, [...name]);
}

type Token = "*" | ((character: string) => boolean);

function tokensOf(pattern: string): Token[] {
  const tokens: Token[] = [];
  const characters = [...pattern];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at]!;
    const end = character === "[" ? characters.indexOf("]", at + 2) : -1;
    if (character === "*") tokens.push("*");
    else if (character === "?") tokens.push(() => true);
    else if (end > 0) {
      tokens.push(oneOf(characters.slice(at + 1, end)));
      at = end;
    } else tokens.push((given) => given === character);
  }
  return tokens;
}

/** `[abc]`, `[a-z]`, `[!abc]` */
function oneOf(set: readonly string[]): (character: string) => boolean {
  const not = set[0] === "!" || set[0] === "^";
  const members = not ? set.slice(1) : set;
  return (given) => {
    let found = false;
    for (let i = 0; i < members.length; i++) {
      const from = members[i]!;
      const to = members[i + 1] === "-" ? members[i + 2] : undefined;
      if (to !== undefined) i += 2;
      found ||= given >= from && given <= (to ?? from);
    }
    return found !== not;
  };
}

/** Goes back to the last star only: what came before it cannot match better. */
function matches(tokens: readonly Token[], name: readonly string[]): boolean {
  let t = 0;
  let n = 0;
  let star = -1;
  let starAt = 0;
  while (n < name.length) {
    const token = tokens[t];
    if (token === "*") {
      star = t++;
      starAt = n;
    } else if (token?.(name[n]!)) {
      t++;
      n++;
    } else if (star >= 0) {
      t = star + 1;
      n = ++starAt;
    } else return false;
  }
  while (tokens[t] === "*") t++;
  return t === tokens.length;
}
