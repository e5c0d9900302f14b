/** How small files of state stand on disk: a line of JSON, and on the next line the CRC-32C of its bytes. */
import { crc32c } from "./crc32c.ts";

/** Eight hex digits. */
export function crcOf(text: string | Uint8Array): string {
  return inHex(crc32c(typeof text === "string" ? Buffer.from(text) : text));
}

/** As `crcOf` says it, of a checksum that was taken piece by piece. */
export function inHex(crc: number): string {
  return crc.toString(16).padStart(8, "0");
}

export function checkedLine(line: string): string {
  return `${line}\n${crcOf(line)}\n`;
}
