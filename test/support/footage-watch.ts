/** The units of footage that an agent says it has stored, read from its log as that grows: it says so after the sync. */
import { open } from "node:fs/promises";

export class FootageWatch {
  readonly #logFile: string;
  readonly #units = new Set<string>();
  #position = 0;
  #rest = "";
  #reading: Promise<void> = Promise.resolve();

  constructor(logFile: string) {
    this.#logFile = logFile;
  }

  /** How many so far. */
  async stored(): Promise<number> {
    return (await this.units()).size;
  }

  /** epoch/sequence */
  async units(): Promise<ReadonlySet<string>> {
    this.#reading = this.#reading.then(() => this.#read());
    await this.#reading;
    return this.#units;
  }

  async #read(): Promise<void> {
    const file = await open(this.#logFile, "r");
    try {
      const chunk = Buffer.alloc(262_144);
      for (;;) {
        const { bytesRead } = await file.read(chunk, 0, chunk.length, this.#position);
        if (bytesRead === 0) return;
        this.#position += bytesRead;
        const lines = (this.#rest + chunk.toString("latin1", 0, bytesRead)).split("\n");
        this.#rest = lines.pop()!;
        for (const line of lines) this.#take(line);
      }
    } finally {
      await file.close();
    }
  }

  #take(line: string): void {
    if (!line.includes('"footage unit stored"')) return;
    // A process that was killed may have left half a line.
    const unit = /"epoch":"([0-9a-f]+)","sequence":"(\d+)"/.exec(line);
    if (unit !== null) this.#units.add(`${unit[1]}/${unit[2]}`);
  }
}
