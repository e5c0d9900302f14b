/** A disk that is really full: a small tmpfs, where mounting is allowed. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { type GatewayParts, healthOf } from "../../../../../gateway/api/console/state.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { makeFrame, readAll } from "../../../../contract/streams.ts";
import { makeLocalPlace } from "./local-place.ts";

const SHARD_0 = "shardId-000000000000";
const DISK_BYTES = 4 * 1_048_576;

function mount(folder: string): string | undefined {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "tmpfs", folder], { stdio: "pipe" });
    return undefined;
  } catch (error) {
    return `no tmpfs can be mounted here: ${(error as Error).message.split("\n")[0]}`;
  }
}

/** What /healthz says where nothing else is wrong. */
function problems(streams: Streams): readonly string[] {
  const none = { status: () => [] };
  return healthOf({ streams, delivery: none, analytics: none } as unknown as GatewayParts).problems;
}

test("a full disk refuses appends; with room again the log goes on and has all that it acknowledged", async (t) => {
  const place = await makeLocalPlace();
  const refusal = mount(place.dir);
  if (refusal !== undefined) {
    await place.remove();
    t.skip(refusal);
    return;
  }
  try {
    let streams = await place.open();
    await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
    const filler = join(place.dir, "filler");
    await writeFile(filler, Buffer.alloc(DISK_BYTES / 2));
    let sequence = 1n;
    const acknowledged: string[] = [];
    const append = async (): Promise<void> => {
      const text = `${sequence}/${"x".repeat(50_000)}`;
      await streams.appendFrame(makeFrame("s", sequence, [text]));
      acknowledged.push(text);
      sequence++;
    };
    await assert.rejects(
      async () => {
        for (;;) await append();
      },
      { code: "LOG_FULL", retryable: true },
    );
    assert.ok(acknowledged.length > 5, `${acknowledged.length} were stored before`);
    const textsNow = async (): Promise<string[]> =>
      (await readAll(streams, "s", SHARD_0)).map(({ text }) => text);
    assert.deepEqual(await textsNow(), acknowledged);
    assert.deepEqual(problems(streams), ["stream s cannot be written: no space left"]);
    await rm(filler);
    const until = performance.now() + 60_000;
    while (performance.now() < until) {
      if (
        await append().then(
          () => true,
          () => false,
        )
      )
        break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await append();
    assert.deepEqual(await textsNow(), acknowledged);
    assert.deepEqual(problems(streams), []);
    await streams.close();
    streams = await place.open();
    assert.deepEqual(await textsNow(), acknowledged);
    await streams.close();
  } finally {
    execFileSync("umount", ["-l", place.dir], { stdio: "pipe" });
    await place.remove();
  }
});
