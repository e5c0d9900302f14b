/** Tails a file into a buffer until it is killed: `tail-until-killed.ts <buffer folder> <file>`. */
import { FileTail } from "../../../agent/sources/file-tail.ts";
import { openBuffer } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, tailConfig } from "./source-parts.ts";

const [folder, path] = process.argv.slice(2) as [string, string];
const buffer = await openBuffer(folder);
const source = new FileTail({
  ...sourceParts(buffer),
  config: tailConfig(path, { pollMs: 5, rotateWaitMs: 20 }),
});
await source.start();
process.send?.("tailing");
process.on("message", () => process.send?.(buffer.usage().waitingRecords));
process.on("disconnect", () => process.exit(0));
