/** `npm run build`: compiles the programs, the tests and the console into dist/. */
import { prepare } from "./prepare.mjs";

await prepare("build");
