/**
 * What `--check` finds beyond the schema: filters are compiled, and tried on a record, in the very worker
 * that would run them. Nothing is opened and nothing is stored.
 */
import type { ShapeConfig, SourceConfig } from "../../config/source-config.ts";
import { systemClock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import { Metrics } from "../../runtime/metrics.ts";
import { unfinishedJq } from "./shape/jq-lint.ts";
import { sourceMeters } from "./source-meters.ts";

type FilterConfig = NonNullable<ShapeConfig["filter"]>;

/** A name that is nowhere defined fails on any record; other failures may be the example's fault. */
const ALWAYS_WRONG = /is not defined$|^no such function/;

/** One line each, `sources[2].shape.filter.jq: …`; empty when all is well. */
export async function sourceProblems(sources: readonly SourceConfig[]): Promise<string[]> {
  const problems: string[] = [];
  for (const [i, source] of sources.entries()) {
    if (source.type === "camera" || source.shape?.filter === undefined) continue;
    const { filter } = source.shape;
    const kind = filter.jq === undefined ? "javascript" : "jq";
    const problem = await filterProblem(source.name, source.type, filter);
    if (problem !== undefined)
      problems.push(`sources[${i}].shape.filter.${kind}: ${problem}; ${ACCEPTED[kind]} would be accepted`);
  }
  return problems;
}

const ACCEPTED = {
  javascript: "an expression over record, such as record.temperature < 100,",
  jq: "an expression such as select(.temperature < 100)",
};

async function filterProblem(name: string, type: string, config: FilterConfig): Promise<string | undefined> {
  const unfinished = config.jq === undefined ? undefined : unfinishedJq(config.jq);
  if (unfinished !== undefined) return unfinished;
  const { Filter } = await import("./shape/filter.ts");
  const meters = sourceMeters(new Metrics(), name, type);
  const filter = new Filter(name, { ...config, onError: "keep" }, meters, systemClock);
  try {
    await filter.start();
    const reading = { sensor: name, timeUs: undefined, fields: { value: 1 } };
    const [made] = await filter.apply([{ reading, arrivalUs: systemClock.nowUs() }]);
    const failed = made?.[0]?.fields.filter_error;
    return typeof failed === "string" && ALWAYS_WRONG.test(failed) ? failed : undefined;
  } catch (error) {
    return describeReason(error);
  } finally {
    await filter.close();
  }
}

/** Without the name of the source, which the path tells. */
function describeReason(error: unknown): string {
  const reason = error instanceof Error ? error.message : describeError(error);
  return reason.replace(/^.*?the filter cannot be used: /s, "");
}
