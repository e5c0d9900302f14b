/** What a bench found, against what it should have: printed line by line as it comes, and given as figures at the end. */
import { rounded } from "./floor.ts";

export class Bars {
  readonly figures: Record<string, number> = {};
  readonly #say: (line: string) => void;
  #met = 0;
  #missed = 0;

  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  /** A figure by itself. */
  note(name: string, value: number, text: string): void {
    this.figures[name] = rounded(value);
    this.#say(`  ${text.padEnd(44)} ${shown(value)}`);
  }

  /** A figure that shall be at least, or at most, the bar. A peer that is not there leaves it open. */
  bar(name: string, value: number | undefined, sense: ">=" | "<=", bar: number, text: string): void {
    if (value === undefined || Number.isNaN(value)) {
      this.#say(`  ${text.padEnd(44)} ${"-".padStart(9)}   ${sense} ${bar}   not measured`);
      return;
    }
    const met = sense === ">=" ? value >= bar : value <= bar;
    if (met) this.#met++;
    else this.#missed++;
    this.figures[name] = rounded(value);
    this.#say(`  ${text.padEnd(44)} ${shown(value)}   ${sense} ${bar}   ${met ? "met" : "NOT MET"}`);
  }

  end(): void {
    this.figures.barsMet = this.#met;
    this.figures.barsMissed = this.#missed;
    this.#say(`${this.#met} bars met, ${this.#missed} not met`);
  }
}

function shown(value: number): string {
  return rounded(value).toLocaleString("en-US", { maximumFractionDigits: 3 }).padStart(9);
}
