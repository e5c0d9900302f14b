/** `npm run bench -- NAME` and `npm run faults -- NAME --times N`: set up, build, measure. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { prepare, root } from "./prepare.mjs";

const [kind, ...args] = process.argv.slice(2);
// These have a NATS cluster in one of their parts; without nats-server that part is left out.
await prepare("demo", { engines: args[0] === undefined || args[0] === "streams" });
const entry = join(root, "dist", kind === "faults" ? "test/faults/main.js" : "bench/main.js");
process.argv = [process.argv[0], entry, ...args];
await import(pathToFileURL(entry).href);
