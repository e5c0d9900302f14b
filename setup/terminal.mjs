/** What set-up and demo say to the person at the terminal. */

/** How often a line is written where lines cannot be rewritten, as in a log. */
const LOG_INTERVAL_MS = 5_000;

export function say(line) {
  process.stdout.write(`headwater: ${line}\n`);
}

/** Ends the program: what is wrong, and what to do about it. */
export function fail(problem, hint = "", code = 1) {
  process.stderr.write(`\nheadwater: ${problem}\n${hint === "" ? "" : `${hint}\n`}`);
  process.exit(code);
}

/** One line that says how far a long work is; a terminal sees it rewritten in place. */
export class Progress {
  #what;
  #startedMs = Date.now();
  #saidMs = Date.now();
  #last = "";

  constructor(what, note = "") {
    this.#what = what;
    say(`${what}${note === "" ? "" : ` (${note})`}`);
  }

  update(text) {
    if (text === this.#last) return;
    this.#last = text;
    if (process.stdout.isTTY) {
      process.stdout.write(`\r\x1b[2Kheadwater: ${this.#what}: ${text}`.slice(0, process.stdout.columns + 5));
    } else if (Date.now() - this.#saidMs >= LOG_INTERVAL_MS) {
      this.#saidMs = Date.now();
      say(`${this.#what}: ${text}`);
    }
  }

  /** Leaves the cursor at the start of an empty line. */
  clear() {
    if (process.stdout.isTTY && this.#last !== "") process.stdout.write("\r\x1b[2K");
    this.#last = "";
  }

  done() {
    this.clear();
    say(`${this.#what}: done in ${Math.ceil((Date.now() - this.#startedMs) / 1_000)} s`);
  }
}
