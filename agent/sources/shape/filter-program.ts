/**
 * What runs in a filter's worker, as text: a worker made from text needs no file of its own beside a
 * bundled agent. Only strings go in and out.
 *
 * A record comes as JSON `{sensor, time?, …fields}`. The expression's result decides: `true` keeps it
 * as it is; `false`, `null` or nothing leaves it out; an object replaces it; an array of objects (or
 * several results of jq) makes several.
 *
 * JavaScript runs in a context without anything of Node's, and may not make code from strings. That
 * keeps mistakes in; it is no wall against malice: the config's author is trusted.
 */
export const FILTER_PROGRAM = `
const { parentPort, workerData } = require("node:worker_threads");
const { createContext, runInContext, Script } = require("node:vm");
const { kind, expression, jqPath, maxBytes, maxResults, place } = workerData;
const progress = new Int32Array(place);

async function compiled() {
  if (kind === "jq") {
    const { compile } = await import(jqPath);
    const program = compile(expression);
    return (text) => {
      const results = [];
      for (const result of program(JSON.parse(text))) {
        if (results.length >= maxResults) throw new Error("more than " + maxResults + " results");
        results.push(result);
      }
      return JSON.stringify(results);
    };
  }
  const context = createContext(Object.create(null), { codeGeneration: { strings: false, wasm: false } });
  const evaluate = new Script(
    '"use strict"; (text) => { const record = JSON.parse(text); const result = (' + expression + '\\n);' +
    ' return JSON.stringify(Array.isArray(result) ? result : [result === undefined ? null : result]); }',
    { filename: "filter" },
  ).runInContext(context);
  return (text) => evaluate(text);
}

function checked(text) {
  if (text.length > maxBytes) throw new Error("a result of more than " + maxBytes + " bytes");
  const results = JSON.parse(text);
  if (results.length > maxResults) throw new Error("more than " + maxResults + " results");
  for (const result of results) {
    if (result === null || typeof result === "boolean") continue;
    if (typeof result !== "object" || Array.isArray(result)) {
      throw new Error("its result is neither true, false, null nor an object");
    }
  }
  return text;
}

function reasonOf(error) {
  try { return String(error && error.message !== undefined ? error.message : error).slice(0, 200); }
  catch { return "it threw something odd"; }
}

compiled().then(
  (evaluate) => {
    parentPort.on("message", (texts) => {
      const answers = texts.map((text, i) => {
        Atomics.store(progress, 0, i);
        try { return { results: checked(evaluate(text)) }; }
        catch (error) { return { failed: reasonOf(error) }; }
      });
      parentPort.postMessage({ answers });
    });
    parentPort.postMessage({ ready: true });
  },
  (error) => parentPort.postMessage({ broken: reasonOf(error) }),
);
`;
