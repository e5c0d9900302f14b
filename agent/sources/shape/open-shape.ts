/** A source's shape, ready: its filter's worker has started, and is loaded only where there is one. */
import type { ShapeConfig } from "../../../config/source-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { SourceMeters } from "../source-meters.ts";
import { makeShape, type Shape } from "./shape.ts";

/** @throws FilterInvalidError */
export async function openShape(
  source: string,
  config: ShapeConfig | undefined,
  meters: SourceMeters,
  clock: Clock,
): Promise<Shape | undefined> {
  if (config?.filter === undefined) return makeShape(config, meters, undefined);
  const { Filter } = await import("./filter.ts");
  const filter = new Filter(source, config.filter, meters, clock);
  await filter.start();
  return makeShape(config, meters, filter);
}
