/**
 * What is stored of what a source reads:
 *
 *   reading → names and fields → filter (JavaScript or jq) → deadband → sampling → 0, 1 or more readings
 *
 * Each step is there only when the config asks for it. What is left out is counted by its reason.
 */
import type { ShapeConfig } from "../../../config/source-config.ts";
import type { Arrival, SensorReading } from "../source.ts";
import type { SourceMeters } from "../source-meters.ts";
import { Deadband } from "./deadband.ts";
import type { Filter } from "./filter.ts";
import { mapping } from "./mapping.ts";
import { Sampling } from "./sampling.ts";

export interface Shape {
  /** For each, in their order, what is to be stored of it. A promise only where a filter has to be asked. */
  apply(
    arrived: readonly Arrival[],
  ): readonly (readonly SensorReading[])[] | Promise<readonly (readonly SensorReading[])[]>;
  /** Forgets what passed: it was not stored after all, and comes again. */
  reset(): void;
  close(): Promise<void>;
}

/** @param filter where the config has one */
export function makeShape(
  config: ShapeConfig | undefined,
  meters: SourceMeters,
  filter: Filter | undefined,
): Shape | undefined {
  if (config === undefined) return undefined;
  const map = mapping(config);
  const deadband = config.deadband && new Deadband(config.deadband);
  const sampling = config.sample && new Sampling(config.sample);

  const thinned = ({ reading, arrivalUs }: Arrival): boolean => {
    if (deadband?.passes(reading, arrivalUs) === false) {
      meters.leftOut("deadband", 1);
      return false;
    }
    if (sampling?.takes(reading.sensor, arrivalUs) === false) {
      meters.leftOut("sampling", 1);
      return false;
    }
    return true;
  };
  const mapped = (arrived: readonly Arrival[]): readonly Arrival[] =>
    map === undefined
      ? arrived
      : arrived.map(({ reading, arrivalUs }) => ({ reading: map(reading), arrivalUs }));
  const thin = (lists: readonly (readonly SensorReading[])[], arrived: readonly Arrival[]) =>
    lists.map((readings, i) =>
      readings.filter((reading) => thinned({ reading, arrivalUs: arrived[i]!.arrivalUs })),
    );

  return {
    apply(arrived) {
      const given = mapped(arrived);
      if (filter === undefined)
        return thin(
          given.map(({ reading }) => [reading]),
          arrived,
        );
      return filter.apply(given).then((lists) => {
        const none = lists.filter((readings) => readings.length === 0).length;
        if (none > 0) meters.leftOut("filter", none);
        return thin(lists, arrived);
      });
    },
    reset() {
      deadband?.reset();
      sampling?.reset();
    },
    close: () => filter?.close() ?? Promise.resolve(),
  };
}
