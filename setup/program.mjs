/** `npm run agent|gateway|sim -- …`: starts a built program in this very process. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { onParentEnd } from "./command.mjs";
import { root } from "./prepare.mjs";
import { fail } from "./terminal.mjs";

const [program, ...args] = process.argv.slice(2);
const entry = join(root, "dist", program, "main.js");
if (!existsSync(entry)) fail(`${program} is not built`, "Run: npm run build");
// A relative file is meant from where the user is; npm brought us into the checkout.
if (process.env.INIT_CWD !== undefined) process.chdir(process.env.INIT_CWD);
if (process.env.npm_lifecycle_event !== undefined) onParentEnd(() => process.kill(process.pid, "SIGTERM"));
process.argv = [process.argv[0], entry, ...args];
await import(pathToFileURL(entry).href);
