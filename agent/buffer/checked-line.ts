/** How sidecars stand on disk: a line of JSON, and on the next line the CRC-32C of its bytes. */
import { crc32c } from "../../runtime/crc32c.ts";

/** Of a line; it is the next one. */
export function crcOf(line: string | Uint8Array): string {
  return crc32c(typeof line === "string" ? Buffer.from(line) : line)
    .toString(16)
    .padStart(8, "0");
}

export function checkedLine(line: string): string {
  return `${line}\n${crcOf(line)}\n`;
}
