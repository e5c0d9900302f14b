/**
 * The footage buffer as the uplink sees it: nothing is read before the time is known, and units whose
 * pictures were given provisional times come out with true ones. Their packets stay as they are.
 */
import type { FootageUnit } from "../../protocol/footage.ts";
import type { FootageBuffer, FootageUsage, UnitPlace } from "../buffer/footage-buffer.ts";
import { isProvisional, trueUs } from "./provisional-time.ts";
import type { TimeKeeper } from "./time-keeper.ts";

export class TimedFootage implements FootageBuffer {
  readonly #inner: FootageBuffer;
  readonly #keeper: TimeKeeper;

  constructor(inner: FootageBuffer, keeper: TimeKeeper) {
    this.#inner = inner;
    this.#keeper = keeper;
  }

  async read(camera: string, after: UnitPlace | undefined): Promise<FootageUnit | undefined> {
    if (!this.#keeper.known) return undefined;
    const unit = await this.#inner.read(camera, after);
    if (unit === undefined || !isProvisional(unit.producerUs)) return unit;
    const clocks = unit.clocks.map((clock) => ({ ...clock, utcUs: this.#inUtc(clock.utcUs) }));
    return { ...unit, producerUs: this.#inUtc(unit.producerUs), clocks };
  }

  async waiting(camera: string, after: UnitPlace | undefined, signal: AbortSignal): Promise<void> {
    await this.#keeper.whenKnown(signal);
    await this.#inner.waiting(camera, after, signal);
  }

  #inUtc(timeUs: number): number {
    const moment = isProvisional(timeUs) ? this.#keeper.momentOf(timeUs) : undefined;
    return moment === undefined ? timeUs : trueUs(timeUs, moment.utcUs);
  }

  append(...unit: Parameters<FootageBuffer["append"]>): Promise<UnitPlace> {
    return this.#inner.append(...unit);
  }

  waitingOther(...known: Parameters<FootageBuffer["waitingOther"]>): Promise<void> {
    return this.#inner.waitingOther(...known);
  }

  ack(...units: Parameters<FootageBuffer["ack"]>): Promise<void> {
    return this.#inner.ack(...units);
  }

  reportGap(...gap: Parameters<FootageBuffer["reportGap"]>): void {
    this.#inner.reportGap(...gap);
  }

  newestUs(camera: string): number | undefined {
    return this.#inner.newestUs(camera);
  }

  cameras(): Promise<string[]> {
    return this.#inner.cameras();
  }

  usage(): FootageUsage {
    const usage = this.#inner.usage();
    return { ...usage, oldestUs: this.#keeper.oldestInUtc(usage.oldestUs) };
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
