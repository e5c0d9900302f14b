/** How many files and connections this process may have open. */
import { readFile } from "node:fs/promises";

/** Undefined where there is no limit, or no telling: only Linux says it. Node has raised it as far as it may by then. */
export async function maxOpenFiles(): Promise<number | undefined> {
  const limits = await readFile("/proc/self/limits", "utf8").catch(() => "");
  const soft = /^Max open files +(\d+) /m.exec(limits)?.[1];
  return soft === undefined ? undefined : Number(soft);
}
