/**
 * Stands where a delivery would whose own files cannot be used. It delivers nothing, until an operator has
 * decided what becomes of them and the gateway is started again: to guess could lose records or double
 * them. What it would have delivered stays in the stream as long as the retention, and everything else runs.
 */
import type { DeliveryConfig } from "../../config/gateway-config.ts";
import { describeError, type HeadwaterError } from "../../runtime/errors.ts";
import type { DeliveredObject, DeliveryStatus } from "./delivery.ts";

export class HaltedCutter {
  readonly #config: DeliveryConfig;
  readonly #destination: string;
  readonly #error: HeadwaterError;

  constructor(config: DeliveryConfig, destination: string, error: HeadwaterError) {
    this.#config = config;
    this.#destination = destination;
    this.#error = error;
  }

  start(): void {}

  async close(): Promise<void> {}

  /** What was delivered stands in those files. */
  status(): DeliveryStatus {
    return {
      name: this.#config.name,
      stream: this.#config.stream,
      destination: this.#destination,
      state: "failed",
      deliveredObjects: 0,
      deliveredRecords: 0,
      failedRecords: 0,
      trimmedRecords: 0,
      waitingMs: 0,
      lastError: describeError(this.#error),
    };
  }

  recent(): DeliveredObject[] {
    return [];
  }
}
