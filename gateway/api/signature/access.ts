/** What a key may do: the `allow` list of its config against the name of an action. */
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";

/**
 * @param action such as `kinesis:PutRecords`, or `console`
 * A `*` in the list stands for any characters, also none, as in AWS's policies.
 */
export function allows(key: AccessKeyConfig, action: string): boolean {
  return key.allow.some((pattern) => matches(pattern, action));
}

/** Linear in both lengths, whatever the pattern: no regular expression is built from it. */
function matches(pattern: string, text: string): boolean {
  const pieces = pattern.split("*");
  if (pieces.length === 1) return pattern === text;
  const first = pieces[0]!;
  const last = pieces[pieces.length - 1]!;
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length)
    return false;
  let at = first.length;
  const end = text.length - last.length;
  for (const piece of pieces.slice(1, -1)) {
    const found = text.indexOf(piece, at);
    if (found < 0 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}
