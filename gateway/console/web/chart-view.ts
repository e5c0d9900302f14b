/** The chart of a chosen sensor: its recent past first, then each reading as it is stored. */
import type { GatewayState, Reading, SensorSummary } from "./contract.ts";
import { byId, setText, updateSelect } from "./elements.ts";
import { fetchReadings, fetchSensors, liveReadingsAddress } from "./gateway-client.ts";
import { LineChart } from "./line-chart.ts";
import { LiveSocket } from "./live-socket.ts";
import { ReadingSeries } from "./reading-series.ts";
import * as units from "./units.ts";

const REDRAW_MS = 200;
const SENSORS_EVERY_MS = 4_000;
const SOONER_MS = 1_000;
/** Streams of the system's own. */
const OWN_STREAM = /^headwater-/;
const NO_STREAM = "No stream yet: add one under streams in gateway.yaml.";
const NO_SENSOR = "No sensor in this stream yet: add a source to agent.yaml, or publish to the gateway.";

export class ChartView {
  readonly #stream = byId<HTMLSelectElement>("chart-stream");
  readonly #sensor = byId<HTMLSelectElement>("chart-sensor");
  readonly #field = byId<HTMLSelectElement>("chart-field");
  readonly #span = byId<HTMLSelectElement>("chart-span");
  readonly #value = byId("chart-value");
  readonly #detail = byId("chart-detail");
  readonly #empty = byId("chart-empty");
  readonly #place = byId("chart");
  readonly #chart = new LineChart(this.#place);
  readonly #series = new ReadingSeries();
  #sensors: readonly SensorSummary[] = [];
  #sensorsDueMs = 0;
  /** Of the readings before it some may be missing. */
  #wholeFromUs = 0;
  #socket: LiveSocket | undefined;
  #watched: string | undefined;
  #clockAheadMs = 0;
  #redraw: number | undefined;

  constructor() {
    this.#stream.addEventListener("change", () => this.#sensorsChanged([]));
    this.#sensor.addEventListener("change", () => this.#watch());
    this.#field.addEventListener("change", () => this.#draw());
    this.#span.addEventListener("change", () => void this.#loadHistory().catch(() => {}));
  }

  async update(state: GatewayState): Promise<void> {
    this.#clockAheadMs = state.nowMs - Date.now();
    const names = state.streams.map(({ name }) => name);
    const stream = updateSelect(
      this.#stream,
      names,
      state.statements[0]?.input ?? names.find((name) => !OWN_STREAM.test(name)),
    );
    if (stream === undefined) this.#sensorsChanged([]);
    else if (performance.now() >= this.#sensorsDueMs) {
      const sensors = await fetchSensors(stream);
      this.#sensorsDueMs = performance.now() + (sensors.length > 0 ? SENSORS_EVERY_MS : SOONER_MS);
      if (stream === this.#stream.value) this.#sensorsChanged(sensors);
    }
    this.#watch();
  }

  /** The page is hidden, or signed out. */
  stop(): void {
    this.#socket?.close();
    this.#socket = undefined;
    this.#watched = undefined;
    clearInterval(this.#redraw);
    this.#redraw = undefined;
  }

  #sensorsChanged(sensors: readonly SensorSummary[]): void {
    if (sensors.length === 0) this.#sensorsDueMs = 0;
    this.#sensors = sensors;
    updateSelect(
      this.#sensor,
      sensors.map(({ key }) => key),
    );
    this.#watch();
  }

  #watch(): void {
    const stream = this.#stream.value;
    const key = this.#sensor.value;
    const fields = this.#sensors.find((sensor) => sensor.key === key)?.fields ?? [];
    updateSelect(this.#field, fields, fields.find((field) => /temperature/i.test(field)) ?? fields.at(-1));
    const watched = key === "" ? "" : `${stream}\n${key}`;
    this.#redraw ??= window.setInterval(() => this.#draw(), REDRAW_MS);
    if (watched === this.#watched) return;
    this.#watched = watched;
    this.#series.clear();
    this.#wholeFromUs = 0;
    this.#socket?.close();
    this.#socket = undefined;
    this.#draw();
    if (watched === "") return;
    this.#socket = new LiveSocket(liveReadingsAddress(stream, key), {
      // Also after a break, so that what was missed is there.
      onOpen: () => void this.#loadHistory().catch(() => {}),
      onText: (text) => this.#series.add(readingsOf(text)),
    });
  }

  async #loadHistory(): Promise<void> {
    const watched = this.#watched;
    const { rows, wholeFromUs = 0 } = await fetchReadings(
      this.#stream.value,
      this.#sensor.value,
      Number(this.#span.value),
    );
    if (watched === this.#watched) {
      this.#series.setHistory(rows);
      this.#wholeFromUs = wholeFromUs;
    }
    this.#draw();
  }

  #draw(): void {
    const field = this.#field.value;
    const spanS = Number(this.#span.value);
    const nowMs = Date.now() + this.#clockAheadMs;
    const points = this.#series.points(field, (nowMs - spanS * 1_000) * 1_000);
    const [times, values] = points;
    this.#chart.show(field, points, nowMs / 1_000 - spanS, nowMs / 1_000);
    const numbers = values.filter((value) => value !== null);
    const last = numbers.at(-1);
    if (last === undefined) {
      this.#showEmpty(this.#emptyText());
      return;
    }
    this.#empty.hidden = true;
    const lastMs = times.at(-1)! * 1_000;
    const lowest = numbers.reduce((least, value) => Math.min(least, value), Infinity);
    const highest = numbers.reduce((most, value) => Math.max(most, value), -Infinity);
    const decimals = units.decimalsOf(numbers);
    const isAll = this.#wholeFromUs <= (nowMs - spanS * 1_000) * 1_000;
    const missing = isAll ? "" : ` · not all before ${units.time(this.#wholeFromUs / 1_000, nowMs)}`;
    const show = (value: number) => units.measure(value, decimals);
    setText(this.#value, show(last));
    setText(
      this.#detail,
      `${field} at ${units.time(lastMs, nowMs)} · lowest ${show(lowest)}, highest ${show(highest)} · ${units.counted(numbers.length, "reading")}${missing}`,
    );
    const said = `Line chart: ${field} of ${this.#sensor.value}`;
    if (this.#place.getAttribute("aria-label") !== said) this.#place.setAttribute("aria-label", said);
  }

  #showEmpty(text: string): void {
    setText(this.#value, "");
    setText(this.#detail, "");
    setText(this.#empty, text);
    this.#empty.hidden = false;
  }

  #emptyText(): string {
    if (this.#stream.value === "") return NO_STREAM;
    if (this.#sensor.value === "") return NO_SENSOR;
    return `No reading of ${this.#sensor.value} in this span.`;
  }
}

/** What is no list of readings is left out. */
function readingsOf(text: string): Reading[] {
  const parsed: unknown = JSON.parse(text);
  if (!Array.isArray(parsed)) return [];
  return (parsed as Partial<Reading>[]).filter(
    (reading): reading is Reading =>
      typeof reading?.timeUs === "number" && typeof reading.values === "object",
  );
}
