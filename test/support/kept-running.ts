/** A program as a service manager runs it: started again whenever it ends by itself, however often. */
import type { Program } from "./program.ts";

const RESTART_MS = 300;

export class KeptRunning {
  readonly #start: () => Program;
  #program: Program | undefined;
  #wanted = false;
  #ended: Array<{ atMs: number; how: number | string }> = [];

  /** @param start a new process each time */
  constructor(start: () => Program) {
    this.#start = start;
  }

  /** When and how it ended though nobody killed it. */
  get ownEnds(): ReadonlyArray<{ readonly atMs: number; readonly how: number | string }> {
    return this.#ended;
  }

  /** Of the process that runs, or ran last. */
  get pid(): number {
    return this.#program?.pid ?? 0;
  }

  get isWanted(): boolean {
    return this.#wanted;
  }

  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#run();
  }

  /** Resolves when it is ready, at this start or a later one. */
  async ready(): Promise<void> {
    for (;;) {
      const program = this.#program;
      if (program === undefined) throw new Error("it was not started");
      const ready = await program.ready.then(
        () => true,
        () => false,
      );
      if (ready && program === this.#program) return;
      if (!this.#wanted) throw new Error("it was killed before it was ready");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** SIGKILL. It stays away until it is started. */
  async kill(): Promise<void> {
    this.#wanted = false;
    await this.#program?.kill();
  }

  /** Asks it to drain and end. Resolves with how it ended; 0 when it did not run. */
  async stop(): Promise<number | string> {
    const runs = this.#wanted;
    this.#wanted = false;
    return runs ? this.#program!.stop() : 0;
  }

  #run(): void {
    const program = this.#start();
    this.#program = program;
    void program.exited.then(async (how) => {
      if (!this.#wanted || this.#program !== program) return;
      this.#ended.push({ atMs: performance.now(), how });
      await new Promise((resolve) => setTimeout(resolve, RESTART_MS));
      if (this.#wanted && this.#program === program) this.#run();
    });
  }
}
