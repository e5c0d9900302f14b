/**
 * The canonical forms of Signature Version 4: path, query and headers as signer and verifier must
 * both write them. Specification: "Create a signed AWS API request", AWS IAM User Guide, step 1.
 */

/** Every service but S3 encodes each segment once more and resolves dots and doubled slashes. */
export function canonicalPath(path: string): string {
  if (path === "/" || path === "") return "/";
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(encode(segment));
  }
  const trailing = segments.length > 0 && path.endsWith("/") ? "/" : "";
  return `/${segments.join("/")}${trailing}`;
}

/** A decoded name and value. */
export type QueryPair = readonly [name: string, value: string];

export function parseQuery(query: string): QueryPair[] {
  if (query === "") return [];
  const pairs: QueryPair[] = [];
  for (const pair of query.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    if (equals < 0) pairs.push([decode(pair), ""]);
    else pairs.push([decode(pair.slice(0, equals)), decode(pair.slice(equals + 1))]);
  }
  return pairs;
}

export function canonicalQuery(pairs: readonly QueryPair[]): string {
  if (pairs.length === 0) return "";
  return pairs
    .map(([name, value]) => [encode(name), encode(value)] as const)
    .sort((a, b) => compare(a[0], b[0]) || compare(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

/**
 * Lower-case names; values trimmed, inner runs of spaces made one, and those of one name joined by commas.
 * @param raw names and values in turn
 */
export function canonicalHeaders(raw: readonly string[]): Map<string, string> {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    const value = oneSpaced(raw[i + 1]!);
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  return headers;
}

function oneSpaced(value: string): string {
  // Hardly any value needs it, and to look is cheaper than to replace.
  return (value.includes("  ") ? value.replace(/ +/g, " ") : value).trim();
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** RFC 3986 §2.3: all but the unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function decode(text: string): string {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
