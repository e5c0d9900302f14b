/**
 * What was acknowledged and what was read of it: for each producer one number, for each reader and
 * producer one more, however long it goes on.
 *
 *   writer ─acknowledged(producer, n)→ Ledger ←compared at the end─ View ←record─ reader
 */

/** Findings told in words, of all readers and of one; the rest is only counted. */
const MAX_FINDINGS = 60;
const MAX_FINDINGS_EACH = 5;
/** Stands near the beginning, whoever added fields before it, so that a record need not be parsed whole. */
const HEAD = /"producer":"([^"]+)","seq":(\d+)/;
const FILLING = "0123456789abcdefghijklmnopqrstuvwxyz";

/** Sends numbers from 1 on, one request after the other. After a failure it goes on under another name: what failed may be stored or not. */
export class Producer {
  name: string;
  readonly #ledger: Ledger;
  readonly #stream: string;
  readonly #base: string;
  #lives = 1;
  #sent = 0;

  constructor(ledger: Ledger, stream: string, base: string) {
    this.#ledger = ledger;
    this.#stream = stream;
    this.#base = base;
    this.name = base;
    ledger.add(this.name, stream);
  }

  /** The next record, JSON of `bytes` bytes or a little more. */
  next(bytes: number): Buffer {
    const head = `{"producer":"${this.name}","seq":${++this.#sent},"filling":"`;
    const filling = FILLING.repeat(Math.ceil(Math.max(0, bytes - head.length - 2) / FILLING.length));
    return Buffer.from(`${head.concat(filling).slice(0, Math.max(head.length, bytes - 2))}"}`);
  }

  /** Everything that was sent so far is stored. */
  acknowledged(): void {
    this.#ledger.acknowledge(this.name, this.#sent);
  }

  failed(): void {
    this.name = `${this.#base}-life-${++this.#lives}`;
    this.#sent = 0;
    this.#ledger.add(this.name, this.#stream);
  }
}

export class Ledger {
  readonly findings: string[] = [];
  acknowledgedRecords = 0;
  readRecords = 0;
  lost = 0;
  /** Or out of order. */
  doubled = 0;
  readonly #acknowledged = new Map<string, { readonly stream: string; last: number }>();
  readonly #views: View[] = [];
  readonly #findings = new Map<string, number>();

  add(producer: string, stream: string): void {
    this.#acknowledged.set(producer, { stream, last: 0 });
  }

  acknowledge(producer: string, last: number): void {
    const entry = this.#acknowledged.get(producer)!;
    this.acknowledgedRecords += last - entry.last;
    entry.last = last;
  }

  /** @param toTheEnd it shall have seen all that was acknowledged when the hour is over */
  view(name: string, stream: string, toTheEnd: boolean): View {
    const view = new View(this, name, stream, false);
    if (toTheEnd) this.#views.push(view);
    return view;
  }

  /** Of one who comes when it has long begun, and goes before it ends. */
  passingView(name: string, stream: string): View {
    return new View(this, name, stream, true);
  }

  knows(producer: string): boolean {
    return this.#acknowledged.has(producer);
  }

  /** Records that are acknowledged and that somebody who reads to the end has not read yet. */
  missing(): number {
    let records = 0;
    this.#eachMissing((_view, _producer, missing) => {
      records += missing;
    });
    return records;
  }

  /** What is missing now is lost. */
  close(): void {
    this.#eachMissing((view, producer, missing) => {
      this.lost += missing;
      this.find(view.name, `the last ${missing} records of ${producer} never came`);
    });
  }

  find(reader: string, finding: string): void {
    const found = this.#findings.get(reader) ?? 0;
    this.#findings.set(reader, found + 1);
    if (found < MAX_FINDINGS_EACH && this.findings.length < MAX_FINDINGS)
      this.findings.push(`${reader}: ${finding}`);
  }

  #eachMissing(take: (view: View, producer: string, missing: number) => void): void {
    for (const view of this.#views) {
      for (const [producer, { stream, last }] of this.#acknowledged) {
        const missing = last - view.last(producer);
        if (stream === view.stream && missing > 0) take(view, producer, missing);
      }
    }
  }
}

/** One reader's sight of a stream from its beginning on, or from what it sees first. */
export class View {
  readonly name: string;
  readonly stream: string;
  readonly #ledger: Ledger;
  readonly #last = new Map<string, number>();
  readonly #joins: boolean;

  constructor(ledger: Ledger, name: string, stream: string, joins: boolean) {
    this.#ledger = ledger;
    this.name = name;
    this.stream = stream;
    this.#joins = joins;
  }

  last(producer: string): number {
    return this.#last.get(producer) ?? 0;
  }

  take(data: Uint8Array): void {
    const head = HEAD.exec(Buffer.from(data.buffer, data.byteOffset, data.length).toString("latin1", 0, 256));
    if (head !== null) this.took(head[1]!, Number(head[2]), Number(head[2]));
  }

  /** Records `from` to `to` of a producer came. Those of who is not in the ledger are of no interest. */
  took(producer: string, from: number, to: number): void {
    const ledger = this.#ledger;
    if (!ledger.knows(producer)) return;
    const last = this.#last.get(producer) ?? (this.#joins ? from - 1 : 0);
    ledger.readRecords += to - from + 1;
    if (from <= last) {
      ledger.doubled += Math.min(to, last) - from + 1;
      ledger.find(this.name, `${producer} ${from} came when ${last} had come`);
    } else if (from > last + 1) {
      ledger.lost += from - last - 1;
      ledger.find(this.name, `${producer} ${from} came after ${last}`);
    }
    if (to > last) this.#last.set(producer, to);
  }
}
