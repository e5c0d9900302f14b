/** What was delivered where, and the newest files. */
import type { DeliveredObject, DeliveryStatus } from "./contract.ts";
import { DataTable } from "./data-table.ts";
import { byId } from "./elements.ts";
import * as units from "./units.ts";

const ROWS = 10;

export class DeliveriesView {
  readonly #deliveries = new DataTable(
    "Deliveries",
    [
      { title: "Delivery" },
      { title: "From" },
      { title: "To", wide: true },
      { title: "Records", numeric: true },
      { title: "Files", numeric: true },
      { title: "Failed", numeric: true },
      { title: "Oldest waiting", numeric: true },
      { title: "Last error", wide: true },
    ],
    "No delivery yet: add one under delivery in gateway.yaml.",
  );
  readonly #files = new DataTable(
    "Newest files, the newest first",
    [
      { title: "File", wide: true },
      { title: "Delivery" },
      { title: "Records", numeric: true },
      { title: "Size", numeric: true },
      { title: "Delivered", numeric: true },
    ],
    "No file yet: the first is cut when a delivery's bufferSeconds or bufferBytes is reached.",
  );

  constructor() {
    byId("deliveries").replaceChildren(this.#deliveries.root);
    byId("files").replaceChildren(this.#files.root);
  }

  update(deliveries: readonly DeliveryStatus[], objects: readonly DeliveredObject[], nowMs: number): void {
    this.#deliveries.update(
      deliveries.map((delivery) => ({
        key: delivery.name,
        cells: [
          delivery.name,
          delivery.stream,
          delivery.destination,
          units.count(delivery.deliveredRecords),
          units.count(delivery.deliveredObjects),
          delivery.failedRecords > 0
            ? { text: units.count(delivery.failedRecords), tone: "bad" as const }
            : "0",
          delivery.waitingMs === 0 ? "–" : units.duration(delivery.waitingMs),
          delivery.lastError === undefined ? "–" : { text: delivery.lastError, tone: "bad" as const },
        ],
      })),
    );
    this.#files.update(
      objects.slice(0, ROWS).map((object) => ({
        key: `${object.delivery}/${object.name}`,
        cells: [
          object.name,
          object.delivery,
          units.count(object.records),
          units.bytes(object.bytes),
          units.time(object.deliveredMs, nowMs),
        ],
      })),
    );
  }
}
