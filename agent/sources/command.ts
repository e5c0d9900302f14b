/**
 * A program of the user's whose lines are readings. One that is meant to run for ever is started again
 * with back-off when it ends; one with `everySeconds` is run so often, and killed when it takes too long.
 *
 * No shell is between, and the agent's own environment, which may hold secrets, is not passed on. The
 * program and its children are one process group, so that none of them outlives the source; the kernel
 * ends it also when the agent is killed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { CommandSourceConfig } from "../../config/source-config.ts";
import { pause } from "../../runtime/backoff.ts";
import { describeError, HeadwaterError } from "../../runtime/errors.ts";
import { Assembly } from "./assembly.ts";
import { type LineDecoder, lineDecoder } from "./decode/line-decoder.ts";
import type { Arrived } from "./intake.ts";
import { LineQueue, type QueuedLine } from "./line-queue.ts";
import { LineSplitter } from "./line-splitter.ts";
import type { Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

export interface CommandSourceOptions extends SourceParts {
  readonly config: CommandSourceConfig;
  /** The agent's own, of which a program gets a little. */
  readonly environment: Readonly<NodeJS.ProcessEnv>;
}

/** The program could not be started, failed, or ended though it was meant to run for ever. */
export class CommandEndedError extends HeadwaterError {
  constructor(program: string, how: string, said: string) {
    super("COMMAND_ENDED", {
      retryable: true,
      message: `${program} ${how}${said === "" ? "" : `: ${said}`}`,
      hint: "try the command in a shell as the agent's user; it is started again by itself",
    });
  }
}

/** What a program gets of our environment. */
const PASSED_ON = ["PATH", "HOME", "LANG", "TZ", "USER"];
const KILL_AFTER_MS = 1_500;
/** What it left behind may write on for so long, and hold its output while nothing comes from there. */
const LEFT_BEHIND_MS = 1_000;
/** Of what it last wrote to stderr, for the error. */
const MAX_SAID_CHARACTERS = 300;
/** The exit codes of a launcher that did not find, or could not run, what it should. */
const LAUNCH_FAILED = [126, 127];

export class CommandSource implements Source {
  readonly #options: CommandSourceOptions;
  readonly #assembly: Assembly;
  readonly #queue: LineQueue;
  #decoder: LineDecoder;
  #child: ChildProcess | undefined;

  constructor(options: CommandSourceOptions) {
    this.#options = options;
    const { config } = options;
    this.#decoder = lineDecoder(config.format, config.name, config.csv);
    this.#queue = new LineQueue({
      store: (lines) => this.#store(lines),
      // The program waits when its pipe is full: that is the back-pressure.
      onFull: () => this.#child?.stdout?.pause(),
      onRoom: () => this.#child?.stdout?.resume(),
    });
    this.#assembly = new Assembly(options, (life) => this.#live(life));
  }

  get name(): string {
    return this.#options.config.name;
  }

  async start(): Promise<void> {
    void this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { everySeconds, timeoutSeconds, command } = this.#options.config;
    if (everySeconds === undefined) {
      await this.#runOnce(life);
      if (!life.signal.aborted) throw new CommandEndedError(command[0]!, "ended", "");
      return;
    }
    while (!life.signal.aborted) {
      const startedMs = this.#options.clock.monotonicMs();
      await this.#runOnce(life, timeoutSeconds * 1_000);
      life.fed();
      const tookMs = this.#options.clock.monotonicMs() - startedMs;
      await pause(Math.max(0, everySeconds * 1_000 - tookMs), life.signal);
    }
  }

  /** @throws CommandEndedError unless it ended with 0 or was closed */
  async #runOnce(life: Life, timeoutMs?: number): Promise<void> {
    const { config, clock } = this.#options;
    const program = config.command[0]!;
    const lines = new LineSplitter(() => this.#assembly.meters.rejected("a line of more than 64 KiB"));
    this.#decoder = lineDecoder(config.format, config.name, config.csv);
    const child = this.#spawn();
    if (child.stdout === undefined) {
      // Without descriptors Node makes no pipes, either, and says why in the next turn.
      const [error] = await once(child, "error");
      throw new CommandEndedError(program, "could not be started", describeError(error));
    }
    this.#child = child;
    let said = "";
    let timedOut = false;
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-MAX_SAID_CHARACTERS);
    });
    let chunks = 0;
    child.stdout!.on("data", (chunk: Buffer) => {
      chunks++;
      life.fed();
      this.#queue.push(lines.push(chunk), clock.nowUs());
    });
    const stopFreeing = freeOutput(child, { chunks: () => chunks, isHeld: () => this.#queue.isFull });
    const late = timeoutMs === undefined ? undefined : setTimeout(onTimeout, timeoutMs);
    function onTimeout(): void {
      timedOut = true;
      kill(child);
    }
    const stop = (): void => endGently(child);
    life.signal.addEventListener("abort", stop, { once: true });
    if (life.signal.aborted) stop();
    try {
      await once(child, "spawn");
      life.running();
      const [code, signal] = (await once(child, "close")) as [number | null, string | null];
      // A last line without its end.
      this.#queue.push(lines.push(Buffer.of(10)), clock.nowUs());
      await this.#queue.stored();
      if (life.signal.aborted || (code === 0 && !timedOut)) return;
      const how = timedOut ? `took longer than ${config.timeoutSeconds} s` : describeEnd(code, signal);
      throw new CommandEndedError(program, how, said.trim());
    } catch (error) {
      if (error instanceof CommandEndedError) throw error;
      throw new CommandEndedError(program, "could not be started", describeError(error));
    } finally {
      clearTimeout(late);
      stopFreeing();
      life.signal.removeEventListener("abort", stop);
      // Children of its own that it left behind.
      signalGroup(child, "SIGKILL");
      this.#child = undefined;
    }
  }

  #spawn(): ChildProcess {
    const { command, cwd, env } = this.#options.config;
    const passed = PASSED_ON.flatMap((name) => {
      const value = this.#options.environment[name];
      return value === undefined ? [] : [[name, value] as const];
    });
    // setpriv is part of util-linux, which every Debian has.
    return spawn("setpriv", ["--pdeathsig", "KILL", "--", ...command], {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...Object.fromEntries(passed), ...env },
      ...(cwd !== undefined && { cwd }),
    });
  }

  async #store(lines: readonly QueuedLine[]): Promise<void> {
    try {
      const arrived = lines.flatMap(({ line, arrivalUs }) => this.#arrived(line, arrivalUs));
      if (arrived.length > 0) await this.#assembly.intake.store(arrived, this.#assembly.signal);
    } catch (error) {
      this.#assembly.meters.fault(describeError(error));
    }
  }

  #arrived(line: Buffer, arrivalUs: number): Arrived[] {
    const { readings, reason } = this.#decoder.decode(line, arrivalUs);
    if (reason === undefined) return readings.map((reading) => ({ reading, arrivalUs }));
    if (this.#options.config.undecodable !== "drop")
      return [{ reading: this.#assembly.intake.raw(this.name, reason, line), arrivalUs }];
    this.#assembly.meters.rejected(reason);
    return [];
  }

  /** The process that runs now; undefined between two. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  status(): SourceReport {
    const report = this.#assembly.report();
    return this.#queue.isFull ? { ...report, state: "stalled" } : report;
  }

  async close(): Promise<void> {
    await this.#assembly.close(this.#queue.stored());
  }
}

function describeEnd(code: number | null, signal: string | null): string {
  if (code !== null && LAUNCH_FAILED.includes(code)) return "could not be run";
  return signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
}

/** First asked, then made to. */
function endGently(child: ChildProcess): void {
  signalGroup(child, "SIGTERM");
  const late = setTimeout(() => kill(child), KILL_AFTER_MS);
  child.once("close", () => clearTimeout(late));
}

/**
 * A program that ended may have left something behind that holds its output, and its end would never be
 * noticed. What is still in the pipe is read first, however long the buffer takes. @returns ends that
 */
function freeOutput(
  child: ChildProcess,
  output: { chunks: () => number; isHeld: () => boolean },
): () => void {
  let timer: NodeJS.Timeout | undefined;
  let seen: number | undefined;
  const look = (): void => {
    signalGroup(child, "SIGKILL");
    if (!output.isHeld() && output.chunks() === seen) kill(child);
    seen = output.isHeld() ? undefined : output.chunks();
  };
  child.once("exit", () => {
    timer = setInterval(look, LEFT_BEHIND_MS);
  });
  return () => clearInterval(timer);
}

/** A grandchild that left the group may hold the pipes for ever; the program is over all the same. */
function kill(child: ChildProcess): void {
  signalGroup(child, "SIGKILL");
  child.stdout?.destroy();
  child.stderr?.destroy();
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The group is gone.
  }
}
