import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { journalLine, journalSink } from "../../runtime/journal.ts";
import { createLog } from "../../runtime/log.ts";

const LIMIT = { timeout: 60_000 };

function logged(write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  write(createLog("agent", "debug", { write: (line: string) => void lines.push(journalLine(line)) }));
  return lines;
}

test("an event is one line with its priority in front and its fields behind", () => {
  const lines = logged((log) => {
    log.info({ device: "pi-1", httpPort: 8081 }, "agent runs");
    log.child({ part: "record buffer" }).warn({ error: "NO: it\nbroke", left: { a: 1 } }, "it is\nbad");
    log.error({ equation: "a=b", empty: "" }, "wrong");
    log.debug({ password: "hush" }, "seen");
  });
  assert.deepEqual(lines, [
    "<6>agent runs device=pi-1 httpPort=8081\n",
    '<4>it is\\u000abad part="record buffer" error="NO: it\\nbroke" left={"a":1}\n',
    '<3>wrong equation="a=b" empty=""\n',
    "<7>seen password=[Redacted]\n",
  ]);
});

test("whatever is logged, an event stays one line and has one priority", () => {
  const anything = fc.dictionary(
    fc.string({ unit: "binary" }),
    fc.oneof(fc.string({ unit: "binary" }), fc.jsonValue()),
  );
  fc.assert(
    fc.property(anything, fc.string({ unit: "binary" }), (fields, message) => {
      const [line = ""] = logged((log) => log.warn(fields, message));
      assert.match(line, /^<\d>/);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be there
      assert.doesNotMatch(line.slice(0, -1), /[\x00-\x1f\x7f-\x9f]/);
    }),
  );
  assert.equal(journalLine("no JSON\n"), "no JSON\n");
});

/** A child whose standard error is a pipe, and its journal; it alone knows the pipe's inode. */
function journalChild(script: string): ChildProcessByStdio<Writable, Readable, Readable> {
  const here = import.meta.url;
  const compiled = here.endsWith(".js");
  const module = new URL(`../../runtime/journal.${compiled ? "js" : "ts"}`, here).href;
  const source = `
    import { fstatSync } from "node:fs";
    const { journalSink } = await import(${JSON.stringify(module)});
    const { dev, ino } = fstatSync(2, { bigint: true });
    const sink = journalSink({ JOURNAL_STREAM: dev + ":" + ino });
    ${script}
  `;
  const flags = compiled ? [] : ["--import", "tsx"];
  return spawn(process.execPath, [...flags, "--input-type=module", "-e", source], {
    stdio: ["pipe", "pipe", "pipe"],
  });
}

test("only a standard error that is the journal's own gets such lines", async () => {
  assert.equal(journalSink({}), undefined);
  assert.equal(journalSink({ JOURNAL_STREAM: "8:12345" }), undefined);
  assert.equal(journalSink({ JOURNAL_STREAM: "nonsense" }), undefined);
  const child = journalChild(`sink.write('{"level":"error","msg":"here","a":1}');`);
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(child, "close");
  assert.equal(text, "<3>here a=1\n");
});

/** Node makes standard error non-blocking when somebody asks for it, as MQTT.js does. */
const WRITES = `
  process.stderr.fd;
  const write = (n) => sink.write(JSON.stringify({ level: "info", msg: "line", n, pad: "x".repeat(1000) }));
  for (let n = 0; n < 3000; n++) write(n);
  process.stdout.write("written ");
  let n = 3000;
  process.stdin.on("data", () => { write(n++); process.stdout.write(n + " "); });
`;

test(
  "a journal that takes no lines for a while is waited for, and what did not fit is counted",
  LIMIT,
  async () => {
    const child = journalChild(WRITES);
    await once(child.stdout, "data");
    let text = "";
    child.stderr.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    let last = 3_000;
    for (; !/dropped.*\n/.test(text); last++) {
      child.stdin.write("one more");
      await once(child.stdout, "data");
    }
    child.stdin.end();
    await once(child, "close");
    const lines = text.trimEnd().split("\n");
    const numbers = lines
      .flatMap((line) => /^<6>line n=(\d+) pad=x{1000}$/.exec(line)?.[1] ?? [])
      .map(Number);
    const dropped = Number(
      /^<4>lines of the log were dropped while it could not be written lines=(\d+)$/.exec(
        lines.find((line) => line.startsWith("<4>")) ?? "",
      )?.[1],
    );
    assert.equal(lines.length, numbers.length + 1, "each line is whole");
    assert.deepEqual(
      numbers,
      [...numbers].sort((a, b) => a - b),
    );
    assert.ok(dropped > 1_000 && numbers.length > 1_000, `${numbers.length} came, ${dropped} did not`);
    assert.equal(numbers.length + dropped, last);
  },
);

test("the last lines before a silence reach a journal that was slow", LIMIT, async () => {
  const child = journalChild(WRITES);
  await once(child.stdout, "data");
  let text = "";
  for await (const chunk of child.stderr) {
    text += chunk;
    if (/dropped.*\n/.test(text)) break;
  }
  child.stdin.end();
  await once(child, "close");
  assert.match(text, /lines=\d+\n$/);
});

test("a program that ends gives a slow journal some time for its last lines", LIMIT, async () => {
  const child = journalChild(`
    process.stderr.fd;
    for (let n = 0; n < 500; n++) sink.write(JSON.stringify({ level: "info", msg: "x".repeat(1000) }));
    sink.write('{"level":"error","msg":"cannot go on"}');
    process.exit(1);
  `);
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(child, "close");
  assert.equal(text.split("\n").length - 1, 501);
  assert.ok(text.endsWith("\n<3>cannot go on\n"));
});

test("a program that ends does not wait for ever for a journal that takes nothing", LIMIT, async () => {
  const child = journalChild(`
    process.stderr.fd;
    for (let n = 0; n < 500; n++) sink.write(JSON.stringify({ level: "info", msg: "x".repeat(1000) }));
    process.exit(1);
  `);
  assert.deepEqual(await once(child, "exit"), [1, null]);
  child.stderr.destroy();
});

test("a journal that is gone does not end the program", LIMIT, async () => {
  const child = journalChild(WRITES);
  child.stderr.destroy();
  await once(child.stdout, "data");
  child.stdin.end("one more");
  assert.deepEqual(await once(child, "close"), [0, null]);
});
