/** What a process that was ended in the middle of its work had acknowledged, and what must be left of it. */
import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { readAll } from "../../../../contract/streams.ts";
import { nodeFlags, scriptPath } from "../../../../support/script.ts";
import { textsOfFrame } from "./append-forever.ts";

const SCRIPT = scriptPath("./append-forever.ts", import.meta.url);

export type Mode = "synced" | "without-sync" | "resharding";

export interface Until {
  /** Behind the first acknowledgement, and all that `isEnough` asks for. */
  readonly afterMs: number;
  /** Hears all that the process has said; how much that is in a given time depends on the disk. */
  readonly isEnough?: (output: string) => boolean;
}

/**
 * Appends from `first` on; `end` is called when `until` says, and must see to it that the process ends.
 * Returns the last acknowledged one before any gap.
 */
export async function appendUntilEnded(
  dir: string,
  first: bigint,
  { afterMs, isEnough = () => true }: Until,
  end: (child: ChildProcess) => unknown,
  mode: Mode = "synced",
): Promise<bigint> {
  const execArgv = [...nodeFlags];
  const child = fork(SCRIPT, [dir, String(first), mode], {
    execArgv,
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
  let output = "";
  let complaint = "";
  let ended: unknown;
  let isDue = false;
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-2_000);
  });
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (isDue || !output.includes("ack ") || !isEnough(output)) return;
    isDue = true;
    setTimeout(() => (ended = end(child)), afterMs);
  });
  await once(child, "close");
  await ended;
  const acked = new Set([...output.matchAll(/^ack (\d+)$/gm)].map((match) => BigInt(match[1]!)));
  let last = first - 1n;
  while (acked.has(last + 1n)) last++;
  assert.ok(
    last >= first,
    `nothing was acknowledged; the process ended with ${child.exitCode}: ${complaint}`,
  );
  return last;
}

/** The records of stream `s` by key, in the order of reading. */
export async function textsByKey(streams: Streams): Promise<Map<string, string[]>> {
  const texts = new Map<string, string[]>();
  for (const { shardId } of streams.describe("s").shardList) {
    for (const { key, text } of await readAll(streams, "s", shardId, 0, 1_000_000)) {
      const known = texts.get(key);
      if (known === undefined) texts.set(key, [text]);
      else known.push(text);
    }
  }
  return texts;
}

/** All frames up to the last acknowledged one, and beyond it as many as were stored: whole ones, in order. */
export function expectedTexts(
  acknowledged: bigint,
  found: ReadonlyMap<string, string[]>,
): Map<string, string[]> {
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
