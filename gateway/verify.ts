/** `headwater-gateway --verify DIR`: what a stopped gateway's data folder holds, and what of it is damaged. */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { type VerifyFinding, type VerifyReport, verifyLocalStreams } from "./streams/stores/local/verify.ts";

const MIB = 1_048_576;
/** A line of progress per so many bytes. */
const PROGRESS_BYTES = 1_024 * MIB;

/**
 * Prints what it finds. @param dataDir the gateway's dataDir, or its `streams` folder
 * @returns true when nothing is damaged
 * @throws VerifyRefusedError
 */
export async function verifyDataFolder(dataDir: string, say: (line: string) => void): Promise<boolean> {
  const given = resolve(dataDir);
  const dir = existsSync(join(given, "streams")) ? join(given, "streams") : given;
  let saidBytes = 0;
  const report = await verifyLocalStreams(dir, (stream, bytes) => {
    if (bytes - saidBytes < PROGRESS_BYTES) return;
    saidBytes = bytes;
    say(`… ${Math.round(bytes / MIB)} MiB read, at stream ${stream}`);
  });
  for (const finding of report.findings) say(describe(finding));
  say(summary(report));
  return !report.findings.some(({ kind }) => kind === "damage");
}

function describe({ kind, stream, file, from, to, detail }: VerifyFinding): string {
  const place = from === undefined ? "" : `, bytes ${from} to ${to}`;
  return `${kind}: ${stream === "" ? "" : `stream ${stream}, `}${file}${place}: ${detail}`;
}

function summary({ streams, segments, entries, records, bytes, findings }: VerifyReport): string {
  const damaged = findings.filter(({ kind }) => kind === "damage").length;
  const torn = findings.length - damaged;
  const tail = torn === 0 ? "" : `, ${torn} torn (never acknowledged; the next start cuts it off)`;
  return `${streams} streams, ${segments} segments, ${entries} entries, ${records} records, ${(bytes / MIB).toFixed(1)} MiB: ${
    damaged === 0 ? "sound" : `${damaged} damaged`
  }${tail}`;
}
