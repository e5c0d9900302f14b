/**
 * Reads files that other programs write, as `tail -F` does, and knows after any break where it was: the
 * place in a file is stored in the same synced write as the records up to it.
 *
 *   file → records (lines, or several lines each) → readings ─append with place→ buffer
 *
 * One file by its path, or all that a pattern matches. tail/tailed-file.ts says what is done about
 * rotation, tail/followed-files.ts how many are followed at once.
 */
import type { FileSourceConfig } from "../../config/source-config.ts";
import { Assembly } from "./assembly.ts";
import type { Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";
import { FollowedFiles } from "./tail/followed-files.ts";
import { isPattern } from "./tail/glob.ts";
import type { TailParts } from "./tail/tail-parts.ts";
import { TailedFile } from "./tail/tailed-file.ts";
import { Window } from "./tail/window.ts";

export interface FileTailOptions extends SourceParts {
  /** `path` is absolute. */
  readonly config: FileSourceConfig;
}

export class FileTail implements Source {
  readonly name: string;
  readonly #assembly: Assembly;
  readonly #files: FollowedFiles | TailedFile;

  constructor(options: FileTailOptions) {
    const { config, device, buffer, clock, log } = options;
    const { name, path, from } = config;
    this.name = name;
    this.#assembly = new Assembly(options, (life) => this.#live(life));
    const { meters } = this.#assembly;
    const intake = () => this.#assembly.intake;
    const parts: TailParts = { config, device, buffer, clock, log, meters, intake, window: new Window() };
    this.#files = isPattern(path)
      ? new FollowedFiles(parts)
      : new TailedFile({ ...parts, path, sensor: name, markName: `file/${name}`, from });
  }

  async start(): Promise<void> {
    void this.#assembly.start();
  }

  #live(life: Life): Promise<void> {
    return this.#files.live(life);
  }

  status(): SourceReport {
    const report = this.#assembly.report();
    return this.#files instanceof FollowedFiles ? this.#files.report(report) : report;
  }

  close(): Promise<void> {
    return this.#assembly.close();
  }
}
