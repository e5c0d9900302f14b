/** Running a script of this project in a process of its own: compiled where the tests are, from source where they are. */
import { fileURLToPath } from "node:url";

const compiled = import.meta.url.endsWith(".js");

/** What Node must be given before the script. */
export const nodeFlags: readonly string[] = compiled ? ["--enable-source-maps"] : ["--import", "tsx"];

/** @param source path of the `.ts` file, relative to the caller @param from the caller's `import.meta.url` */
export function scriptPath(source: string, from: string): string {
  return fileURLToPath(new URL(compiled ? source.replace(/\.ts$/, ".js") : source, from));
}
