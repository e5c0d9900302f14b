/**
 * The two small files by which LevelDB finds its way in a folder. Reading a part of the chain needs
 * neither, but a folder in which one is damaged has suffered, and that is told.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { findLogDamage } from "./leveldb-log.ts";
import { unlessShort } from "./shortage.ts";

/** @returns sentences; empty when both files are as LevelDB leaves them */
export async function findLevelDamage(folder: string): Promise<string[]> {
  const line = await readFile(join(folder, "CURRENT"), "latin1").catch((error: unknown) =>
    unlessShort(error, ""),
  );
  if (line === "") return ["CURRENT is missing or empty"];
  const current = /^(MANIFEST-\d+)\n$/.exec(line)?.[1];
  if (current === undefined) return ["CURRENT is damaged"];
  const manifest = await readFile(join(folder, current)).catch((error: unknown) =>
    unlessShort(error, undefined),
  );
  if (manifest === undefined) return [`CURRENT names ${current}, which is missing`];
  const at = findLogDamage(manifest, "whole");
  return at === undefined ? [] : [`${current} is damaged at byte ${at}`];
}
