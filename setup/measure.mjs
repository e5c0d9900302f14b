/** `npm run bench -- NAME` and `npm run faults -- NAME --times N`: set up, build, measure. */
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { preferSoundNats } from "./newer-nats.mjs";
import { prepare, root } from "./prepare.mjs";

const [kind, ...args] = process.argv.slice(2);
// These have a NATS cluster in one of their parts; without nats-server that part is left out.
const engines = args[0] === undefined || args[0] === "streams";
// The agent's ordeal turns its clock, which a package of the tests does.
await prepare(kind === "faults" && args[0] === "agent" ? "test" : "demo", { engines });
// As a peer of the bench it is what Debian 12 has.
if (engines && kind === "faults") await preferSoundNats();
const entry = join(root, "dist", kind === "faults" ? "test/faults/main.js" : "bench/main.js");
process.argv = [process.argv[0], entry, ...args];
await import(pathToFileURL(entry).href);
