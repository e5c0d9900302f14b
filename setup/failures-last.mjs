/**
 * A reporter for `node --test` (Node's documentation, "Custom reporters"): TAP as Node writes it, and before its
 * closing lines whatever failed once more, so that the end of a long output tells it all.
 */
import { tap } from "node:test/reporters";

const ERROR_LINES = 25;

/** @param {AsyncIterable<{ type: string, data: any }>} events */
export default async function* failuresLast(events) {
  /** @type {string[]} */
  const failed = [];
  async function* watched() {
    for await (const event of events) {
      if (event.type === "test:fail" && event.data.todo === undefined) failed.push(told(event.data));
      yield event;
    }
  }
  for await (const text of tap(watched())) {
    // The plan of all tests, which is not indented, is the first of the closing lines.
    if (/^1\.\.\d+\n/.test(text)) yield failed.splice(0).join("");
    yield text;
  }
}

/** @param {{ name: string, file?: string, details?: { error?: any } }} test */
function told({ name, file, details }) {
  const error = details?.error?.cause ?? details?.error;
  const lines = String(error?.stack ?? error ?? "no reason was given")
    .split("\n")
    .slice(0, ERROR_LINES);
  return [`failed: ${name} (${file ?? "?"})`, ...lines.map((line) => `  ${line}`)]
    .map((line) => `# ${line}\n`)
    .join("");
}
