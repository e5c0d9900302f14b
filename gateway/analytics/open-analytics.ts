/** Builds the statements of a gateway: each with its own folder, consumer and tables in one DuckDB. */
import { join } from "node:path";
import type { StatementConfig } from "../../config/gateway-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import { HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import type { Analytics, StatementStatus } from "./analytics.ts";
import { analyticsMetrics } from "./analytics-metrics.ts";
import { measureKind } from "./columns.ts";
import { PartialsEngine } from "./engines/duckdb-partials.ts";
import type { Plan } from "./sql/plan.ts";
import { planStatement } from "./sql/planner.ts";
import { type CommitStep, Statement } from "./statement.ts";

/** Keys times windows that one statement may hold open; each commit writes them all. */
const MAX_GROUPS = 100_000;
/** … and their measures: each takes a hundred bytes of memory, and as much in the checkpoint. */
const MAX_MEASURES = 1_000_000;

export interface AnalyticsOptions {
  /** Where checkpoints are kept, a folder for each statement. */
  readonly dir: string;
  readonly streams: Streams;
  readonly statements: readonly StatementConfig[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly maxGroups?: number;
  /** Called after each durable step; tests end the process there. */
  readonly onStep?: (statement: string, step: CommitStep) => void | Promise<void>;
}

/** @throws StatementRefusedError */
export async function openAnalytics(options: AnalyticsOptions): Promise<Analytics> {
  const engine = new PartialsEngine();
  const metrics = analyticsMetrics(options.metrics);
  const statements = options.statements.map((config, i) => {
    const plan = checkStatement(config);
    return new Statement({
      dir: join(options.dir, config.name),
      config,
      plan,
      streams: options.streams,
      clock: options.clock,
      log: options.log.child({ statement: config.name }),
      metrics,
      maxGroups: options.maxGroups ?? maxGroupsOf(plan),
      openPartials: () => engine.prepare(`batch${i}`, plan.measures.map(measureKind)),
      onStep: (step) => options.onStep?.(config.name, step),
    });
  });
  // What one of them writes may be what another reads, so all do this before any of them runs.
  await Promise.all(statements.map((statement) => statement.prepare()));
  return new EmbeddedAnalytics(engine, statements);
}

/** A statement of many measures may hold fewer windows. */
export function maxGroupsOf({ measures }: Pick<Plan, "measures">): number {
  return Math.min(MAX_GROUPS, Math.floor(MAX_MEASURES / Math.max(1, measures.length)));
}

/** @throws StatementRefusedError */
function checkStatement(config: Pick<StatementConfig, "name" | "sql">): Plan {
  try {
    return planStatement(config.sql);
  } catch (error) {
    if (error instanceof HeadwaterError) throw new StatementRefusedError(config.name, error);
    throw error;
  }
}

/** What it reads and what it writes; for `--check`, too: says whether the statement would run. @throws StatementRefusedError */
export function streamsOfStatement(config: Pick<StatementConfig, "name" | "sql">): string[] {
  const { inputStream, outputStream } = checkStatement(config);
  return [inputStream, outputStream];
}

/** The gateway does not start with a statement that it would not run. */
export class StatementRefusedError extends HeadwaterError {
  constructor(statement: string, cause: HeadwaterError) {
    super("STATEMENT_REFUSED", {
      message: `analytics ${statement}: ${cause.message}`,
      ...(cause.hint !== undefined && { hint: cause.hint }),
      cause,
    });
  }
}

class EmbeddedAnalytics implements Analytics {
  readonly #engine: PartialsEngine;
  readonly #statements: readonly Statement[];

  constructor(engine: PartialsEngine, statements: readonly Statement[]) {
    this.#engine = engine;
    this.#statements = statements;
  }

  async start(): Promise<void> {
    if (this.#statements.length > 0) await this.#engine.start();
    for (const statement of this.#statements) statement.start();
  }

  async close(): Promise<void> {
    await Promise.all(this.#statements.map((statement) => statement.close()));
    this.#engine.close();
  }

  status(): StatementStatus[] {
    return this.#statements.map((statement) => statement.status());
  }
}
