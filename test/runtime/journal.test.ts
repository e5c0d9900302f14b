import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import fc from "fast-check";
import { journalLine, journalSink } from "../../runtime/journal.ts";
import { createLog } from "../../runtime/log.ts";

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

test("only a standard error that is the journal's own gets such lines", async () => {
  assert.equal(journalSink({}), undefined);
  assert.equal(journalSink({ JOURNAL_STREAM: "8:12345" }), undefined);
  assert.equal(journalSink({ JOURNAL_STREAM: "nonsense" }), undefined);
  // A child whose standard error is a pipe; it alone knows the pipe's inode.
  const script = `
    import { fstatSync } from "node:fs";
    const { journalSink } = await import(${JSON.stringify(new URL("../../runtime/journal.ts", import.meta.url).href.replace(/\.ts$/, import.meta.url.endsWith(".js") ? ".js" : ".ts"))});
    const { dev, ino } = fstatSync(2, { bigint: true });
    journalSink({ JOURNAL_STREAM: dev + ":" + ino }).write('{"level":"error","msg":"here","a":1}');
  `;
  const flags = import.meta.url.endsWith(".js") ? [] : ["--import", "tsx"];
  const child = spawn(process.execPath, [...flags, "--input-type=module", "-e", script], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  child.stderr.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  await once(child, "close");
  assert.equal(text, "<3>here a=1\n");
});
