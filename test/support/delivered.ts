/** What a delivery to local files left, in the order in which it was delivered. */
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";

export interface DeliveredLine {
  readonly object: string;
  readonly json: Readonly<Record<string, unknown>>;
}

/** Paths of all finished objects below `folder`, by the cut number that ends their names. */
export async function deliveredObjects(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true }).catch(() => [] as string[]);
  return names
    .filter((name) => name.endsWith(".gz") && !name.startsWith("errors"))
    .sort((a, b) => (cutNumber(a) < cutNumber(b) ? -1 : 1))
    .map((name) => join(folder, name));
}

export async function deliveredLines(folder: string): Promise<DeliveredLine[]> {
  const lines: DeliveredLine[] = [];
  for (const object of await deliveredObjects(folder)) {
    for (const line of gunzipSync(await readFile(object))
      .toString("utf8")
      .split("\n")) {
      if (line !== "") lines.push({ object, json: JSON.parse(line) as Record<string, unknown> });
    }
  }
  return lines;
}

/** NDJSON of the simulator's truth. */
export async function truthLines<T>(file: string): Promise<T[]> {
  const text = await readFile(file, "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

function cutNumber(name: string): string {
  const digits = /(\d+)\.[a-z.]+$/.exec(basename(name))?.[1];
  if (digits === undefined) throw new Error(`${name} does not end in a cut number`);
  return digits.padStart(20, "0");
}
