/** `npm run agent|gateway|sim|bench|faults -- …`: starts a built program in this very process. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { fail, root } from "./prepare.mjs";

const [program, ...args] = process.argv.slice(2);
const entry = join(root, "dist", program, "main.js");
if (!existsSync(entry)) fail(`${program} is not built`, "Run: npm run build");
process.argv = [process.argv[0], entry, ...args];
await import(pathToFileURL(entry).href);
