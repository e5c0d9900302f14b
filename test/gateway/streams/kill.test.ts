import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import test from "node:test";
import { readAll } from "../../contract/streams.ts";
import { nodeFlags, scriptPath } from "../../support/script.ts";
import { textsOfFrame } from "./append-forever.ts";
import { makeLocalPlace } from "./local-place.ts";

const SCRIPT = scriptPath("./append-forever.ts", import.meta.url);
const ROUNDS = 6;

/** Appends from `first` on and is killed `afterMs` after its first acknowledgement. Returns the last of those without a gap. */
async function appendUntilKilled(dir: string, first: bigint, afterMs: number): Promise<bigint> {
  const execArgv = [...nodeFlags];
  const child = fork(SCRIPT, [dir, String(first)], { execArgv, stdio: ["ignore", "pipe", "inherit", "ipc"] });
  let output = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    if (output === "") setTimeout(() => child.kill("SIGKILL"), afterMs);
    output += text;
  });
  await once(child, "close");
  const acked = new Set([...output.matchAll(/^ack (\d+)$/gm)].map((match) => BigInt(match[1]!)));
  let last = first - 1n;
  while (acked.has(last + 1n)) last++;
  assert.ok(last >= first, `nothing was acknowledged; the process ended with ${child.exitCode}`);
  assert.equal(child.signalCode, "SIGKILL");
  return last;
}

test("after kill -9 every acknowledged frame is there once, whole and in order", {
  timeout: 60_000,
}, async () => {
  const place = await makeLocalPlace();
  try {
    const made = await place.open();
    await made.createStream({ name: "s", shards: 2, retentionHours: 24 });
    await made.close();
    let acknowledged = 0n;
    for (let round = 0; round < ROUNDS; round++) {
      // As an agent does: all that was not acknowledged is sent again.
      acknowledged = await appendUntilKilled(place.dir, acknowledged + 1n, 5 + Math.random() * 200);
      const streams = await place.open();
      const texts = new Map<string, string[]>();
      for (const { shardId } of streams.describe("s").shardList) {
        for (const { key, text } of await readAll(streams, "s", shardId, 0, 1_000_000)) {
          const known = texts.get(key);
          if (known === undefined) texts.set(key, [text]);
          else known.push(text);
        }
      }
      await streams.close();
      assert.deepEqual(texts, expected(acknowledged, texts), `round ${round}`);
    }
    assert.ok(acknowledged > 100n, `${acknowledged} frames in all`);
    assert.ok((await place.segments()).length > 2, "segments were closed on the way");
    assert.ok(!place.logged.includes("the log is damaged; what can be read is kept"), place.logged.join());
  } finally {
    await place.remove();
  }
});

/** All frames up to the last acknowledged one, and beyond it as many as were stored: whole ones, in order. */
function expected(acknowledged: bigint, found: ReadonlyMap<string, string[]>): Map<string, string[]> {
  let last = acknowledged;
  const sequenceOf = (text: string | undefined): bigint => BigInt(/=(\d+)\//.exec(text ?? "k=0/")![1]!);
  for (const texts of found.values()) {
    const newest = sequenceOf(texts.at(-1));
    if (newest > last) last = newest;
  }
  const all = new Map<string, string[]>([...found.keys()].map((key) => [key, []]));
  for (let sequence = 1n; sequence <= last; sequence++) {
    for (const text of textsOfFrame(sequence)) all.get(text.split("=")[0]!)?.push(text);
  }
  return all;
}
