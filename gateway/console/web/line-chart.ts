/** One line over time, drawn by uPlot in the colours of the page. */
import uPlot from "uplot";

export class LineChart {
  readonly #place: HTMLElement;
  #plot: uPlot | undefined;
  #data: uPlot.AlignedData = [[], []];
  #range: [number, number] = [0, 1];
  #label = "";

  constructor(place: HTMLElement) {
    this.#place = place;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(place);
    // Colours are drawn into a canvas, so a change of scheme needs a new one.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
    this.#build();
  }

  /** @param fromS, toS the span that the time axis shows */
  show(label: string, data: [number[], (number | null)[]], fromS: number, toS: number): void {
    this.#data = data;
    this.#range = [fromS, toS];
    if (label !== this.#label) {
      this.#label = label;
      this.#build();
    } else this.#plot?.setData(data);
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(200, this.#place.clientWidth), height: Math.max(160, this.#place.clientHeight) };
  }

  #build(): void {
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis: uPlot.Axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const accent = colour("--accent");
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
        padding: [12, 12, 0, 0],
        scales: { x: { time: true, range: () => this.#range }, y: { range: niceRange } },
        axes: [
          { ...axis, values: "{HH}:{mm}:{ss}", space: 90, size: 30, gap: 8 },
          { ...axis, size: 56, gap: 8, values: (_, splits) => splits.map(axisLabel) },
        ],
        series: [
          {},
          {
            label: this.#label,
            stroke: accent,
            width: 2,
            fill: colour("--accent-wash"),
            points: { show: false },
          },
        ],
      },
      this.#data,
      this.#place,
    );
  }
}

/** Room above and below the line, and never a span so small that noise looks like news. */
function niceRange(_: uPlot, min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  const middle = (min + max) / 2;
  const span = Math.max(max - min, Math.abs(middle) * 0.002, 0.1);
  return [middle - span * 0.62, middle + span * 0.62];
}

const ticks = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
function axisLabel(value: number): string {
  return ticks.format(value);
}
