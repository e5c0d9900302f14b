/**
 * Unfinished jq that jqjs takes for an expression which makes nothing, such as `select(.a < )`: a binary
 * operator, or a dot, with nothing behind it. What jqjs itself refuses is not looked for here.
 */
const STRINGS = /"(?:[^"\\]|\\.)*"/gs;
const COMMENTS = /#.*/g;
const UNFINISHED = /(?:[-+*/%<>=|,]|\b(?:and|or))\s*(?=$|[)\]}|,;])|[\w\])?]\.\s*(?=$|[)\]}|,;])/;

/** Why it cannot be meant so; undefined when nothing is found. */
export function unfinishedJq(expression: string): string | undefined {
  const bare = expression
    .replace(STRINGS, (text) => `"${"_".repeat(text.length - 2)}"`)
    .replace(COMMENTS, "");
  if (bare.trim() === "") return "it is empty";
  const match = UNFINISHED.exec(bare);
  if (match === null) return undefined;
  const from = Math.max(0, match.index - 20);
  return `nothing follows ${JSON.stringify(match[0].trim())} in ${JSON.stringify(expression.slice(from, match.index + 10))}`;
}
