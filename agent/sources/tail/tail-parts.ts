/** What a followed file is made of, what it says of itself, and how it fails. */
import type { FileSourceConfig } from "../../../config/source-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Mark, RecordBuffer } from "../../buffer/record-buffer.ts";
import type { Intake } from "../intake.ts";
import type { SourceMeters } from "../source-meters.ts";
import type { FilePlace } from "./file-place.ts";
import type { Window } from "./window.ts";

/** What all files of a source share. */
export interface TailParts {
  readonly config: FileSourceConfig;
  readonly device: string;
  readonly buffer: RecordBuffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly meters: SourceMeters;
  readonly intake: () => Intake;
  readonly window: Window;
}

/** Where a file is one of several that a pattern matches. */
export interface Company {
  /** True for what is followed by itself, whatever its name looks like. */
  readonly isOther: (path: string) => boolean;
  /** True for a file that another one's place was handed to, as it has another name now. */
  readonly isElsewhere: (place: FilePlace) => boolean;
  /** A file is left at this place, to go on with another. The marks are stored with what comes next. */
  readonly leaving: (place: FilePlace) => readonly Mark[];
}

export interface TailedFileOptions extends TailParts {
  /** Absolute. */
  readonly path: string;
  /** What a line that names no sensor is from. */
  readonly sensor: string;
  readonly markName: string;
  /** Where it is begun when nothing is known of it. */
  readonly from: "start" | "end";
  /** Without it the file is the only one, and is waited for when it is gone. */
  readonly company?: Company;
}

/** The file is there and cannot be read. */
export class FileUnreadableError extends HeadwaterError {
  constructor(path: string, cause: unknown) {
    const { code } = cause as NodeJS.ErrnoException;
    super("FILE_UNREADABLE", {
      retryable: true,
      message: `${path}: cannot be read: ${code ?? (cause instanceof Error ? cause.message : cause)}`,
      hint:
        code === "EACCES"
          ? "give the agent's user the right to read it, such as by the group adm"
          : "check the disk",
      cause,
    });
  }
}

/** What a file was when all of it that can be read had been. */
export interface Seen {
  readonly id: string;
  readonly size: number;
  readonly modifiedNs: bigint;
  readonly quietSinceMs: number;
}
