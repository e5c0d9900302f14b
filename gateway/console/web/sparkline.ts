/** A small line of the last minute, for the eye only: the number stands beside it. */

const POINTS = 60;
const WIDTH = 96;
const HEIGHT = 22;
const SVG = "http://www.w3.org/2000/svg";

export class Sparkline {
  readonly root = document.createElementNS(SVG, "svg");
  readonly #line = document.createElementNS(SVG, "polyline");
  readonly #values: number[] = [];

  constructor() {
    this.root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.root.setAttribute("class", "sparkline");
    this.root.setAttribute("aria-hidden", "true");
    this.root.append(this.#line);
  }

  push(value: number): void {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
    const top = Math.max(1, ...this.#values);
    const left = WIDTH - ((this.#values.length - 1) * WIDTH) / (POINTS - 1);
    const points = this.#values.map((each, i) => {
      const x = left + (i * WIDTH) / (POINTS - 1);
      return `${x.toFixed(1)},${(HEIGHT - 2 - (each / top) * (HEIGHT - 4)).toFixed(1)}`;
    });
    this.#line.setAttribute("points", points.join(" "));
  }
}
