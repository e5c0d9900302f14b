/** Writes down which anomalies happened, and when: one line each, once it is over. */
import type { Anomaly, AnomalyKind } from "./anomalies.ts";
import type { TruthFile } from "./truth-file.ts";

interface Running {
  readonly kind: AnomalyKind;
  readonly fromUs: number;
  toUs: number;
}

export class AnomalyRecord {
  readonly #truth: TruthFile;
  readonly #running = new Map<string, Running>();

  constructor(truth: TruthFile) {
    this.#truth = truth;
  }

  /** Call with every message that `sensor` made, or would have made. */
  note(sensor: string, anomaly: Pick<Anomaly, "kind"> | undefined, atUs: number): void {
    const running = this.#running.get(sensor);
    if (running !== undefined && running.kind === anomaly?.kind) {
      running.toUs = atUs;
      return;
    }
    if (running !== undefined) this.#write(sensor, running);
    if (anomaly === undefined) this.#running.delete(sensor);
    else this.#running.set(sensor, { kind: anomaly.kind, fromUs: atUs, toUs: atUs });
  }

  /** Writes those that are still going on as if they ended now. */
  close(): void {
    for (const [sensor, running] of this.#running) this.#write(sensor, running);
    this.#running.clear();
  }

  #write(sensor: string, { kind, fromUs, toUs }: Running): void {
    this.#truth.append({ sensor, kind, fromUs, toUs });
  }
}
