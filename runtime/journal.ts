/**
 * What a program logs when systemd's journal reads it: one line an event, `<4>message key=value …`.
 * The journal takes the priority off the front (sd-daemon(3)) and knows time and program by itself.
 */
import { fstatSync, writeSync } from "node:fs";

/** Priorities of syslog, RFC 5424 §6.2.1. */
const PRIORITIES: Readonly<Record<string, number>> = { debug: 7, info: 6, warn: 4, error: 3 };
/** The journal adds these itself, or the priority says it. */
const KNOWN_BESIDES = new Set(["level", "time", "program", "msg"]);
const MAX_WAITING_BYTES = 1_048_576;
const RETRY_MS = 1_000;
const LAST_TRIES = 40;
const LAST_PAUSE_MS = 50;

interface LineSink {
  write(line: string): void;
}

/**
 * Where to log to when `fd` is the journal, else undefined. JOURNAL_STREAM alone does not tell: a
 * program that was started by a service has it too (systemd.exec(5): compare device and inode).
 */
export function journalSink(environment: Readonly<NodeJS.ProcessEnv>, fd = 2): LineSink | undefined {
  const { JOURNAL_STREAM } = environment;
  if (JOURNAL_STREAM === undefined) return undefined;
  const { dev, ino } = fstatSync(fd, { bigint: true });
  if (JOURNAL_STREAM !== `${dev}:${ino}`) return undefined;
  return new JournalSink(fd);
}

/**
 * A journal that is slow does not take a line (EAGAIN, as Node makes standard error non-blocking), and one that
 * is gone takes none any more (EPIPE). Lines wait until they are taken, what is more than fits is dropped and
 * counted, and the program goes on.
 */
class JournalSink implements LineSink {
  readonly #fd: number;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #dropped = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(fd: number) {
    this.#fd = fd;
    process.once("exit", () => this.#end());
  }

  write(line: string): void {
    this.#add(journalLine(line));
    if (this.#passOn()) this.#tryLater();
  }

  #add(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) this.#dropped++;
    else {
      this.#waiting.push(bytes);
      this.#waitingBytes += bytes.length;
    }
  }

  /** It may be long until the next line, and this one says what to do now. */
  #tryLater(): void {
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      if (this.#passOn()) this.#tryLater();
    }, RETRY_MS).unref();
  }

  /** A program's last lines say why it ends: a slow journal gets some time for them. */
  #end(): void {
    const asleep = new Int32Array(new SharedArrayBuffer(4));
    for (let tries = 0; this.#passOn() && tries < LAST_TRIES; tries++)
      Atomics.wait(asleep, 0, 0, LAST_PAUSE_MS);
  }

  /** @returns whether lines wait that a slow journal may take later */
  #passOn(): boolean {
    let isSlow = this.#writeWaiting();
    if (this.#waiting.length === 0 && this.#dropped > 0) {
      this.#add(`<4>lines of the log were dropped while it could not be written lines=${this.#dropped}\n`);
      this.#dropped = 0;
      isSlow = this.#writeWaiting();
    }
    return isSlow;
  }

  /** @returns whether the journal is slow, and not gone */
  #writeWaiting(): boolean {
    let taken = 0;
    let isSlow = false;
    try {
      for (const bytes of this.#waiting) {
        for (let at = 0; at < bytes.length; ) {
          const written = writeSync(this.#fd, bytes, at);
          at += written;
          // Of a line that was not taken whole the rest comes first the next time.
          this.#waiting[taken] = bytes.subarray(at);
          this.#waitingBytes -= written;
        }
        taken++;
      }
    } catch (error) {
      isSlow = (error as NodeJS.ErrnoException).code === "EAGAIN";
    }
    this.#waiting.splice(0, taken);
    return isSlow;
  }
}

/** @param line an event as one line of JSON, as `createLog` makes it; anything else stays as it is */
export function journalLine(line: string): string {
  let event: Readonly<Record<string, unknown>>;
  try {
    event = JSON.parse(line) as Readonly<Record<string, unknown>>;
  } catch {
    return line;
  }
  const priority = PRIORITIES[String(event.level)] ?? 5;
  let text = `<${priority}>${plain(String(event.msg ?? ""))}`;
  for (const [key, value] of Object.entries(event)) {
    if (!KNOWN_BESIDES.has(key)) text += ` ${plain(key)}=${fieldValue(value)}`;
  }
  return `${text}\n`;
}

/** In quotes where a reader could not tell where it ends. */
function fieldValue(value: unknown): string {
  if (typeof value === "string" && /^[!#-<>-~]+$/.test(value)) return value;
  return plain(JSON.stringify(value) ?? "");
}

/** An event is one line, and no device's name may begin another or steer a terminal. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is taken out
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
