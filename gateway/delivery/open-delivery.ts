/** Builds the deliveries of a gateway: one cutter each, with its own folder, consumer and destination. */
import { join } from "node:path";
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import { type CutStep, Cutter } from "./cutter.ts";
import type { DeliveredObject, Delivery, DeliveryStatus } from "./delivery.ts";
import { deliveryMetrics } from "./delivery-metrics.ts";
import { FilesDestination } from "./destinations/files.ts";

export interface DeliveryOptions {
  /** Where manifests and ledgers are kept, a folder for each delivery. */
  readonly dir: string;
  readonly streams: Streams;
  /** Their destinations' paths are absolute here. */
  readonly deliveries: readonly DeliveryConfig[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Called after each durable step; tests end the process there. */
  readonly onStep?: (delivery: string, step: CutStep) => void | Promise<void>;
}

/** @throws DeliveryStateError */
export async function openDelivery(options: DeliveryOptions): Promise<Delivery> {
  const metrics = deliveryMetrics(options.metrics);
  const cutters: Cutter[] = [];
  for (const config of options.deliveries) {
    cutters.push(
      await Cutter.open({
        dir: join(options.dir, config.name),
        config,
        streams: options.streams,
        openDestination: ({ path }) => new FilesDestination(path),
        clock: options.clock,
        log: options.log.child({ delivery: config.name, stream: config.stream }),
        metrics,
        onStep: (step) => options.onStep?.(config.name, step),
      }),
    );
  }
  const delivery = new FileDeliveries(cutters);
  options.metrics.gauge(
    "headwater_delivery_waiting_seconds",
    "Age of the oldest record that is read but not delivered",
    ["delivery"],
    function () {
      for (const status of delivery.status()) this.set({ delivery: status.name }, status.waitingMs / 1_000);
    },
  );
  return delivery;
}

class FileDeliveries implements Delivery {
  readonly #cutters: readonly Cutter[];

  constructor(cutters: readonly Cutter[]) {
    this.#cutters = cutters;
  }

  async start(): Promise<void> {
    for (const cutter of this.#cutters) cutter.start();
  }

  async close(): Promise<void> {
    await Promise.all(this.#cutters.map((cutter) => cutter.close()));
  }

  status(): DeliveryStatus[] {
    return this.#cutters.map((cutter) => cutter.status());
  }

  recent(limit: number): DeliveredObject[] {
    return this.#cutters
      .flatMap((cutter) => cutter.recent())
      .sort((a, b) => b.deliveredMs - a.deliveredMs)
      .slice(0, limit);
  }
}
