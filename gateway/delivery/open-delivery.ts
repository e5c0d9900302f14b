/** Builds the deliveries of a gateway: one cutter each, with its own folder, consumer and destination. */
import { join } from "node:path";
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import type { Clock } from "../../runtime/clock.ts";
import { DataFolderError } from "../../runtime/data-folder.ts";
import { describeError, type HeadwaterError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import type { Streams } from "../streams/streams.ts";
import { DeliveryStateError, DeliveryStateNewerError } from "./cut-ledger.ts";
import { type CutStep, Cutter } from "./cutter.ts";
import type { DeliveredObject, Delivery, DeliveryStatus } from "./delivery.ts";
import { type DeliveryMetrics, deliveryMetrics } from "./delivery-metrics.ts";
import { FilesDestination } from "./destinations/files.ts";
import { HaltedCutter } from "./halted-cutter.ts";

export interface DeliveryOptions {
  /** Where manifests and ledgers are kept, a folder for each delivery. */
  readonly dir: string;
  readonly streams: Streams;
  /** Their destinations' paths are absolute here. */
  readonly deliveries: readonly DeliveryConfig[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  /** How often expired shards are looked for; once a minute unless given. */
  readonly lookEveryMs?: number;
  /** Called after each durable step; tests end the process there. */
  readonly onStep?: (delivery: string, step: CutStep) => void | Promise<void>;
}

export async function openDelivery(options: DeliveryOptions): Promise<Delivery> {
  const metrics = deliveryMetrics(options.metrics);
  const cutters: Array<Cutter | HaltedCutter> = [];
  for (const config of options.deliveries) cutters.push(await openCutter(options, config, metrics));
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

/** Its own files cannot be used. */
const STATE_ERRORS = [DeliveryStateError, DeliveryStateNewerError, DataFolderError];

/** One whose files are damaged stops no other, and nothing else of the gateway. */
async function openCutter(
  options: DeliveryOptions,
  config: DeliveryConfig,
  metrics: DeliveryMetrics,
): Promise<Cutter | HaltedCutter> {
  const log = options.log.child({ delivery: config.name, stream: config.stream });
  const openDestination = ({ path }: DeliveryConfig["destination"]) => new FilesDestination(path);
  try {
    return await Cutter.open({
      dir: join(options.dir, config.name),
      config,
      streams: options.streams,
      openDestination,
      clock: options.clock,
      log,
      metrics,
      ...(options.lookEveryMs !== undefined && { lookEveryMs: options.lookEveryMs }),
      onStep: (step) => options.onStep?.(config.name, step),
    });
  } catch (error) {
    if (!STATE_ERRORS.some((type) => error instanceof type)) throw error;
    metrics.errors.inc({ delivery: config.name });
    log.error({ error: describeError(error) }, "nothing is delivered");
    return new HaltedCutter(config, openDestination(config.destination).description, error as HeadwaterError);
  }
}

class FileDeliveries implements Delivery {
  readonly #cutters: ReadonlyArray<Cutter | HaltedCutter>;

  constructor(cutters: ReadonlyArray<Cutter | HaltedCutter>) {
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
