/**
 * Delivery: Firehose's job. Each delivery is a consumer that cuts a stream into objects and brings
 * them to a destination exactly once.
 *
 *   stream ─read→ buffer (size, time) → cut manifest (durable) → object → checkpoint
 */

export interface DeliveryStatus {
  readonly name: string;
  readonly stream: string;
  readonly destination: string;
  /** `failed` is for good, until somebody acts on `lastError`. While it tries again it is `running`. */
  readonly state: "running" | "failed";
  readonly deliveredObjects: number;
  readonly deliveredRecords: number;
  /** Records that are no JSON; they are in the error output, with the reason. */
  readonly failedRecords: number;
  /** Records that retention removed before they were read: lost to this delivery. */
  readonly trimmedRecords: number;
  /** Age of the oldest record that is read but not delivered, also from one try to the next; 0 when none is. */
  readonly waitingMs: number;
  readonly lastError?: string;
}

export interface DeliveredObject {
  readonly delivery: string;
  /** Path below the destination. */
  readonly name: string;
  readonly records: number;
  readonly bytes: number;
  readonly deliveredMs: number;
}

export interface Delivery {
  start(): Promise<void>;
  /** Stops reading; what is not delivered is so after the next start. Safe to call twice. */
  close(): Promise<void>;
  status(): DeliveryStatus[];
  /** The newest first. */
  recent(limit: number): DeliveredObject[];
}
