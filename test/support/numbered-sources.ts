/**
 * Sources of an agent that number what they send and know what was taken: a sensor that publishes by MQTT, a
 * program that posts by HTTP, one that writes a log. Each sends again what was not acknowledged, as it must.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readdirSync, renameSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { connect, type MqttClient } from "mqtt";

/** A record by which a changed one is known. */
export interface Numbered {
  readonly seq: number;
  readonly proof: string;
}

export function numbered(sensor: string, seq: number): Numbered {
  // Long enough that a record is often cut in two by whatever cuts.
  return { seq, proof: createHash("sha512").update(`${sensor}/${seq}`).digest("hex") };
}

export interface Moments {
  readonly sentMs: number;
  /** Infinity where nobody acknowledges. */
  acknowledgedMs: number;
}

export interface NumberedSource {
  /** As the agent names it. */
  readonly sensor: string;
  /** Numbers from 1 to here were sent, once or more often. */
  readonly sent: number;
  /** How many of them were acknowledged. */
  readonly acknowledged: number;
  start(): void;
  /** When the number was sent for the first time, and when it was acknowledged; ms since 1970. */
  readonly moments: ReadonlyMap<number, Moments>;
  /** Nothing new is sent; what is unacknowledged is still sent again. */
  finish(): void;
  /** Finished, and all is acknowledged. */
  readonly idle: boolean;
  close(): Promise<void>;
}

/** Publishes of a sensor on their way at once; an agent knows 64 again. */
const WINDOW = 4;
const RECONNECT_MS = 150;
const KEEPALIVE_SECONDS = 3;

/** QoS 1; the client sends again by itself, with the packet ids of the first time ([MQTT-4.4.0-1]). */
export class NumberedSensor implements NumberedSource {
  readonly sensor: string;
  readonly moments = new Map<number, Moments>();
  acknowledged = 0;
  readonly #url: string;
  readonly #pauseMs: number;
  #client: MqttClient | undefined;
  #sent = 0;
  #finished = false;
  #closed = false;

  constructor(options: { sensor: string; url: string; hz: number }) {
    this.sensor = options.sensor;
    this.#url = options.url;
    this.#pauseMs = (WINDOW * 1_000) / options.hz;
  }

  get sent(): number {
    return this.#sent;
  }

  get idle(): boolean {
    return this.#finished && this.acknowledged === this.#sent;
  }

  start(): void {
    this.#client = connect(this.#url, {
      clientId: this.sensor.replaceAll("/", "-"),
      protocolVersion: 4,
      clean: true,
      keepalive: KEEPALIVE_SECONDS,
      connectTimeout: 3_000,
      reconnectPeriod: RECONNECT_MS,
    });
    this.#client.on("error", () => {});
    for (let i = 0; i < WINDOW; i++) void this.#send();
  }

  finish(): void {
    this.#finished = true;
  }

  async close(): Promise<void> {
    this.#finished = true;
    this.#closed = true;
    await this.#client?.endAsync(true);
  }

  async #send(): Promise<void> {
    while (!this.#finished) {
      const moments = begin(this.moments, ++this.#sent);
      const payload = JSON.stringify(numbered(this.sensor, this.#sent));
      while (!(await this.#publish(payload))) if (this.#closed) return;
      moments.acknowledgedMs = Date.now();
      this.acknowledged++;
      await wait(this.#pauseMs);
    }
  }

  /** False when it was not sent at all: the connection broke while the client still sent older ones again. */
  #publish(payload: string): Promise<boolean> {
    return this.#client!.publishAsync(this.sensor, payload, { qos: 1 }).then(
      () => true,
      () => false,
    );
  }
}

/** One post at a time, sent again under the same Idempotency-Key until it is answered with 200. */
export class NumberedPoster implements NumberedSource {
  readonly sensor: string;
  readonly moments = new Map<number, Moments>();
  acknowledged = 0;
  /** Answers that sending again does not mend. */
  readonly refusals: string[] = [];
  readonly #url: string;
  readonly #pauseMs: number;
  readonly #closing = new AbortController();
  #sent = 0;
  #finished = false;
  #running: Promise<void> | undefined;

  constructor(options: { sensor: string; url: string; hz: number }) {
    this.sensor = options.sensor;
    this.#url = `${options.url}/records/${encodeURIComponent(options.sensor)}`;
    this.#pauseMs = 1_000 / options.hz;
  }

  get sent(): number {
    return this.#sent;
  }

  get idle(): boolean {
    return this.#finished && this.acknowledged === this.#sent;
  }

  start(): void {
    this.#running = this.#run();
  }

  finish(): void {
    this.#finished = true;
  }

  async close(): Promise<void> {
    this.#finished = true;
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#finished) {
      const seq = ++this.#sent;
      const moments = begin(this.moments, seq);
      while (!(await this.#post(seq))) {
        if (this.#closing.signal.aborted) return;
        await wait(100);
      }
      moments.acknowledgedMs = Date.now();
      this.acknowledged++;
      await wait(this.#pauseMs);
    }
  }

  async #post(seq: number): Promise<boolean> {
    try {
      const answer = await fetch(this.#url, {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": `${this.sensor}-${seq}` },
        body: JSON.stringify(numbered(this.sensor, seq)),
        signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(3_000)]),
      });
      await answer.arrayBuffer();
      if (![200, 429, 503].includes(answer.status)) this.refusals.push(`${answer.status}`);
      return answer.status === 200;
    } catch {
      return false;
    }
  }
}

/** Lines of JSON; now and then a line comes in two pieces. Nobody acknowledges a line: each must arrive. */
export class NumberedLog implements NumberedSource {
  readonly sensor: string;
  readonly moments = new Map<number, Moments>();
  readonly #path: string;
  readonly #pauseMs: number;
  /** Undefined until the next line opens it. */
  #file: number | undefined;
  #rotated = false;
  #sent = 0;
  #finished = false;
  #running: Promise<void> | undefined;

  constructor(options: { sensor: string; path: string; hz: number }) {
    this.sensor = options.sensor;
    this.#path = options.path;
    this.#pauseMs = 1_000 / options.hz;
  }

  get sent(): number {
    return this.#sent;
  }

  get acknowledged(): number {
    return this.#sent;
  }

  get idle(): boolean {
    return this.#finished;
  }

  start(): void {
    this.#running = this.#run();
  }

  finish(): void {
    this.#finished = true;
  }

  /** As logrotate's `create`: the newest old one is `.1`, and the line that is being written ends there. */
  rotate(): void {
    const prefix = `${basename(this.#path)}.`;
    const old = readdirSync(dirname(this.#path)).filter((name) => name.startsWith(prefix));
    const places = old.map((name) => Number(name.slice(prefix.length))).sort((a, b) => b - a);
    for (const place of places)
      renameSync(`${this.#path}.${place}`, join(dirname(this.#path), `${prefix}${place + 1}`));
    renameSync(this.#path, `${this.#path}.1`);
    closeSync(openSync(this.#path, "a"));
    this.#rotated = true;
  }

  async close(): Promise<void> {
    this.#finished = true;
    await this.#running;
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  async #run(): Promise<void> {
    while (!this.#finished) {
      const seq = ++this.#sent;
      begin(this.moments, seq);
      const line = `${JSON.stringify({ sensor: this.sensor, ...numbered(this.sensor, seq) })}\n`;
      const cut = seq % 7 === 0 ? Math.floor(line.length / 2) : line.length;
      const file = this.#open();
      writeSync(file, line.slice(0, cut));
      if (cut < line.length) {
        await wait(5);
        writeSync(file, line.slice(cut));
      }
      await wait(this.#pauseMs);
    }
  }

  #open(): number {
    if (this.#rotated && this.#file !== undefined) {
      closeSync(this.#file);
      this.#file = undefined;
    }
    this.#rotated = false;
    this.#file ??= openSync(this.#path, "a");
    return this.#file;
  }
}

function begin(moments: Map<number, Moments>, seq: number): Moments {
  const made = { sentMs: Date.now(), acknowledgedMs: Number.POSITIVE_INFINITY };
  moments.set(seq, made);
  return made;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
