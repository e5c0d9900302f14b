/** Errors from logs and statuses, as they are shown to people. */

const MAX_TEXT_CHARS = 300;

export interface ExplainedError {
  readonly code?: string;
  readonly message: string;
  readonly hint?: string;
}

/**
 * Takes `CODE: message (hint)` apart again, as `describeError` joined them.
 * @param event goes before a message without a code, which the system gave
 */
export function explained(error: string, event?: string): ExplainedError {
  const match = /^([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*): ([\s\S]*)$/.exec(error);
  if (match === null) return { message: shown(event === undefined ? error : `${event}: ${error}`) };
  const [, code, rest] = match as unknown as [string, string, string];
  const hintAt = hintStart(rest);
  if (hintAt < 0) return { code, message: shown(rest) };
  return { code, message: shown(rest.slice(0, hintAt - 1)), hint: shown(rest.slice(hintAt + 1, -1)) };
}

/** Where the bracket opens that the last character closes; -1 when there is none behind a space. */
function hintStart(text: string): number {
  if (!text.endsWith(")")) return -1;
  let depth = 0;
  for (let at = text.length - 1; at > 0; at--) {
    if (text[at] === ")") depth++;
    else if (text[at] === "(" && --depth === 0) return text[at - 1] === " " ? at : -1;
  }
  return -1;
}

/** Nothing that would steer a terminal, no user and password of an address, and not too long. */
export function shown(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is taken out
      .replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g, " ")
      .replace(/(\w:\/\/)[^\s/@]*@/g, "$1")
      .slice(0, MAX_TEXT_CHARS)
  );
}
