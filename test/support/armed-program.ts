/** A program with armed steps (armed-steps.ts), as the test sees it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { eventually } from "./program.ts";
import { nodeFlags } from "./script.ts";

const WITHIN_MS = 120_000;

export class ArmedProgram {
  readonly said: string[] = [];
  readonly #child: ChildProcess;
  readonly gone: Promise<unknown>;

  constructor(script: string, args: readonly string[]) {
    this.#child = spawn(process.execPath, [...nodeFlags, script, ...args], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.gone = once(this.#child, "exit");
    createInterface({ input: this.#child.stdout! }).on("line", (line) => this.said.push(line));
  }

  /** How often it told a step, or something that begins so. */
  count(what: string): number {
    return this.said.filter((line) => line.startsWith(what)).length;
  }

  async says(what: string, times = 1): Promise<void> {
    const isSaid = async (): Promise<true | undefined> => (this.count(what) >= times ? true : undefined);
    await eventually(`a gateway says "${what}"`, WITHIN_MS, isSaid);
  }

  /** It sends itself the signal right after the next such step. */
  async arm(step: string, signal: "SIGKILL" | "SIGSTOP"): Promise<void> {
    const armed = this.count("armed") + 1;
    this.#child.stdin!.write(`${step} ${signal}\n`);
    await this.says("armed", armed);
  }

  wake(): void {
    this.#child.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.gone;
  }
}
