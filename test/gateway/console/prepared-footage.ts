/** Moving pictures for the page to play: a real H.264 film by ffmpeg, cut as a gateway sends it. */
import { execFileSync } from "node:child_process";

export const FPS = 15;

export interface Footage {
  readonly init: Buffer;
  readonly pictures: readonly Buffer[];
}

/** One movie fragment for each picture. */
export function makeFootage(seconds: number): Footage {
  const made = execFileSync(
    "ffmpeg",
    [
      ...["-v", "error", "-f", "lavfi", "-i", `testsrc2=size=640x360:rate=${FPS}`, "-t", String(seconds)],
      ...["-c:v", "libx264", "-preset", "ultrafast", "-profile:v", "baseline", "-pix_fmt", "yuv420p"],
      ...[
        "-g",
        String(FPS * 2),
        "-f",
        "mp4",
        "-movflags",
        "empty_moov+default_base_moof+frag_every_frame",
        "-",
      ],
    ],
    { maxBuffer: 64 * 1_048_576 },
  );
  const init: Buffer[] = [];
  const pictures: Buffer[] = [];
  for (let at = 0, moof: Buffer | undefined; at < made.length; ) {
    const box = made.subarray(at, at + made.readUInt32BE(at));
    const type = box.toString("latin1", 4, 8);
    if (type === "ftyp" || type === "moov") init.push(box);
    if (type === "moof") moof = box;
    if (type === "mdat" && moof !== undefined) pictures.push(Buffer.concat([moof, box]));
    at += box.length;
  }
  return { init: Buffer.concat(init), pictures };
}
