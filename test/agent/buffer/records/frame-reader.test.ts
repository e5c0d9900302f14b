import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import test from "node:test";
import { promisify } from "node:util";
import { newPart, sealedName } from "../../../../agent/buffer/records/chain-part.ts";
import { advance, EpochLedger, newEpochState } from "../../../../agent/buffer/records/epoch-ledger.ts";
import { FrameReader, type FrameReaderOptions } from "../../../../agent/buffer/records/frame-reader.ts";
import { nodeFlags, scriptPath } from "../../../support/script.ts";
import { temporaryFolder } from "./buffer-fixture.ts";

test("a part that is dropped while it is being opened is not told as damage", async (t) => {
  const dir = await temporaryFolder(t);
  const state = newEpochState(1, 5n);
  state.last = 3n;
  const part = newPart(1, 1, 5n);
  Object.assign(part, { first: 1n, last: 3n, records: 3, bytes: 300, sealed: true });
  part.name = sealedName(part);
  const told: string[] = [];
  const parts = [part];
  const chain = {
    parts,
    folderOf: () => join(dir, part.name),
    // What goes on behind the writes comes first: here, its removal.
    undisturbed: async <T>(work: () => Promise<T>): Promise<T> => {
      advance(state, 3n);
      parts.length = 0;
      return work();
    },
  };
  const reader = new FrameReader({
    chain: chain as unknown as FrameReaderOptions["chain"],
    ledger: new EpochLedger([], state),
    onDamage: async (_, details) => void told.push(...details),
    onMissing: async (what) => void told.push(what),
  });
  assert.deepEqual(await reader.read(undefined, 1_000), []);
  assert.deepEqual(told, []);
  await reader.close();
});

test("of a part that was written again the sizes of its frames are forgotten", async () => {
  const part = newPart(1, 1, 5n);
  const reader = new FrameReader({
    chain: { parts: [part] } as unknown as FrameReaderOptions["chain"],
    ledger: new EpochLedger([], newEpochState(1, 5n)),
    onDamage: async () => {},
    onMissing: async () => {},
  });
  // A lane read on in the old one: what went with it would be counted out once more.
  part.sizes.set(2n, { records: 10, bytes: 1_000, storedUs: 1 });
  await reader.refresh(part);
  assert.equal(part.sizes.size, 0);
});

test("a process without a file descriptor to spare takes nothing for damaged", async (t) => {
  const script = scriptPath("./no-descriptors.ts", import.meta.url);
  const command = ["-c", 'ulimit -n 256; exec "$@"', "sh", process.execPath, ...nodeFlags, script];
  const { stdout } = await promisify(execFile)("sh", [...command, await temporaryFolder(t)]);
  assert.match(stdout, /all read/);
});
