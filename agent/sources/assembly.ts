/**
 * What every source of records is made of, opened and closed together:
 *
 *   life of the source → readings → shape → intake → buffer
 *   └───────── the supervisor runs it, the meters count it
 *
 * The shape is opened at the beginning of a life, not before: a filter that cannot be used is then this
 * source's trouble alone, told in its status and tried again, while all others go on.
 */
import type { SourceConfig } from "../../config/source-config.ts";
import { Intake } from "./intake.ts";
import { openShape } from "./shape/open-shape.ts";
import type { Shape } from "./shape/shape.ts";
import type { SourceParts, SourceReport } from "./source.ts";
import { type SourceMeters, sourceMeters } from "./source-meters.ts";
import { type Life, Supervisor } from "./supervisor.ts";

export interface AssemblyOptions extends SourceParts {
  readonly config: Exclude<SourceConfig, { type: "camera" }>;
}

export class Assembly {
  readonly meters: SourceMeters;
  readonly #options: AssemblyOptions;
  readonly #supervisor: Supervisor;
  #shape: Shape | undefined;
  #intake: Intake | undefined;

  /**
   * @param live one life of the source; its shape is open before
   * @param maxWaitMs between two tries; 30 s unless told. Short where a try costs nothing and people wait.
   */
  constructor(options: AssemblyOptions, live: (life: Life) => Promise<void>, maxWaitMs?: number) {
    this.#options = options;
    const { config, metrics, clock, log, backoff } = options;
    const { name, type } = config;
    this.meters = sourceMeters(metrics, name, type);
    this.#supervisor = new Supervisor({
      name,
      type,
      clock,
      log,
      meters: this.meters,
      backoff,
      maxWaitMs,
      live: async (life) => {
        await this.#open(life);
        if (!life.signal.aborted) await live(life);
      },
    });
  }

  /** Not to be asked for before the first life began. */
  get intake(): Intake {
    if (this.#intake === undefined) throw new Error("the source has not begun");
    return this.#intake;
  }

  get shaped(): boolean {
    return this.#shape !== undefined;
  }

  /** Aborts when the source is to close. */
  get signal(): AbortSignal {
    return this.#supervisor.signal;
  }

  /** Resolves when the first try is decided; never rejects. */
  start(): Promise<void> {
    return this.#supervisor.start();
  }

  /** @throws FilterInvalidError */
  async #open({ signal }: Life): Promise<void> {
    if (this.#intake !== undefined) return;
    const { config, device, buffer, clock } = this.#options;
    const shape = await openShape(config.name, config.shape, this.meters, clock);
    if (signal.aborted) return shape?.close();
    this.#shape = shape;
    this.#intake = new Intake({
      device,
      stream: config.stream,
      shape,
      buffer,
      clock,
      meters: this.meters,
      onHeld: (held) => this.#supervisor.held(held),
    });
  }

  report(): SourceReport {
    return this.#supervisor.report();
  }

  /** @param work what the life left to be stored */
  async close(work?: Promise<unknown>): Promise<void> {
    await this.#supervisor.close(work);
    await this.#shape?.close();
  }
}
