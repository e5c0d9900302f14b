/**
 * A child process that has a single file descriptor to spare when a stream is to be deleted, and loses that to others
 * in the middle of it: a deletion that is refused deletes nothing, at the next start neither.
 */
import assert from "node:assert/strict";
import { closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { takeDescriptors } from "../../../../support/descriptors.ts";
import { makeLocalPlace } from "./local-place.ts";

const place = await makeLocalPlace(process.argv[2]!);
const streams = await place.open();
await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });

const spare = openSync("/dev/null", "r");
const giveBack = takeDescriptors();
closeSync(spare);
let answered = false;
const deleting = streams.deleteStream("s").finally(() => {
  answered = true;
});
const refused = assert.rejects(deleting, { code: "DATABASE_WRITE_FAILED", message: /EMFILE/ });
// As a connection does that comes while the new streams.json is being written.
let taken: number | undefined;
let begun = false;
while (!answered && taken === undefined) {
  begun ||= existsSync(join(place.dir, "streams.json.tmp"));
  if (begun) taken = openWhereOneIsLeft();
  await new Promise(setImmediate);
}
await refused;
giveBack();
if (taken !== undefined) closeSync(taken);

const [placed] = await streams.append("s", [{ partitionKey: "k", data: Buffer.from("x") }]);
await streams.close();
const again = await place.open();
assert.deepEqual(again.listStreams(), ["s"]);
assert.equal(again.describe("s").shardList[0]!.latest, placed!.offset + 1);
await again.close();
console.log("all there");

function openWhereOneIsLeft(): number | undefined {
  try {
    return openSync("/dev/null", "r");
  } catch {
    return undefined;
  }
}
