/**
 * The stream log's ordeal: a real gateway with devices and API clients writing to it, killed, cut off
 * from power and left without disk space at random moments; then judged by what its API gives back.
 * At the end bytes of its files are flipped, and what is gone must be exactly what was reported.
 */
import { mkdir, open, readdir, rm, stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KinesisClient } from "@aws-sdk/client-kinesis";
import { verifyLocalStreams } from "../../gateway/streams/stores/local/verify.ts";
import { randomFrom } from "./ordeal.ts";
import { eventually, freePorts, Program } from "./program.ts";
import { removeFolder } from "./remove-folder.ts";
import { SmallDisk } from "./small-disk.ts";
import {
  ApiWriter,
  Device,
  judgeRecords,
  kinesisClient,
  READ_WITHIN_MS,
  readStream,
} from "./stream-writers.ts";

const STREAM = "ordeal";
const DISK_BYTES = 768 * 1_048_576;
const KEY = { id: "ordeal", secret: "a-secret-of-the-ordeal-alone" };
const DEVICES = 4;
const CLIENTS = 2;
const FLIPS = 6;
const SETTLE_MS = 60_000;
/** Where a start takes long, little is written between two harms. */
const LEAST_FRAMES = 150;
const LEAST_PUTS = 30;
/** A process that was killed takes a moment to let go of its files. */
const UNMOUNT_MS = 30_000;

export interface StreamOrdealOptions {
  readonly dir: string;
  readonly seed: number;
  readonly seconds: number;
  readonly say: (line: string) => void;
}

export interface StreamVerdict {
  readonly lost: number;
  readonly doubled: number;
  /** Records out of order, changed, or gone without a report. */
  readonly corrupted: number;
  readonly findings: readonly string[];
  readonly compared: Readonly<Record<string, number>>;
}

/** The folder is removed when nothing was found. */
export async function runStreamOrdeal(options: StreamOrdealOptions): Promise<StreamVerdict> {
  const ordeal = new StreamOrdeal(options);
  try {
    await ordeal.run();
  } finally {
    await ordeal.close();
  }
  const verdict = ordeal.verdict();
  if (verdict.findings.length === 0) await removeFolder(options.dir);
  return verdict;
}

type Fault = "kill" | "power-cut" | "full-disk";

class StreamOrdeal {
  readonly #options: StreamOrdealOptions;
  readonly #random: () => number;
  readonly #findings: string[] = [];
  readonly #faults: Record<Fault, number> = { kill: 0, "power-cut": 0, "full-disk": 0 };
  readonly #devices: Device[] = [];
  readonly #clients: ApiWriter[] = [];
  #disk: SmallDisk | undefined;
  #gateway: Program | undefined;
  #ports: { http: number; mqtt: number; rtsp: number } = { http: 0, mqtt: 0, rtsp: 0 };
  #lost = 0;
  #doubled = 0;
  #corrupted = 0;
  #read = 0;
  #flippedBytes = 0;
  #damagedRecords = 0;

  constructor(options: StreamOrdealOptions) {
    this.#options = options;
    this.#random = randomFrom(options.seed);
  }

  async run(): Promise<void> {
    await this.#prepare();
    await this.#start();
    await this.#createWriters();
    await this.#harm();
    await this.#settle();
    const found = await this.#readAll();
    this.#judge(found);
    await this.#flipBytes(found);
  }

  verdict(): StreamVerdict {
    const frames = this.#devices.reduce((sum, { acknowledged }) => sum + acknowledged, 0);
    const puts = this.#clients.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0);
    return {
      lost: this.#lost,
      doubled: this.#doubled,
      corrupted: this.#corrupted,
      findings: this.#findings,
      compared: {
        ...this.#faults,
        acknowledgedFrames: frames,
        acknowledgedPuts: puts,
        readRecords: this.#read,
        flippedBytes: this.#flippedBytes,
        damagedRecords: this.#damagedRecords,
      },
    };
  }

  async close(): Promise<void> {
    for (const writer of [...this.#devices, ...this.#clients]) await writer.stop();
    await this.#gateway?.kill();
    await this.#disk?.remove();
  }

  get #dataDir(): string {
    return join(this.#disk?.path ?? this.#options.dir, "data");
  }

  async #prepare(): Promise<void> {
    const { dir, say } = this.#options;
    await mkdir(dir, { recursive: true });
    const disk = await SmallDisk.make(DISK_BYTES);
    if (typeof disk === "string") say(`only kills: ${disk}`);
    else this.#disk = disk;
    const [http, mqtt, rtsp] = (await freePorts(3)) as [number, number, number];
    this.#ports = { http, mqtt, rtsp };
    await writeFile(
      join(dir, "gateway.yaml"),
      `
dataDir: ${this.#dataDir}
http: { port: ${http} }
mqtt: { port: ${mqtt} }
rtsp: { port: ${rtsp} }
accessKeys: [{ id: ${KEY.id}, secret: ${KEY.secret}, allow: ["*"] }]
streams: [{ name: ${STREAM}, shards: 4 }]
`,
    );
  }

  async #start(): Promise<void> {
    const { dir } = this.#options;
    this.#gateway = new Program("gateway", join(dir, "gateway.yaml"), join(dir, "gateway.log"));
    await this.#gateway.ready;
  }

  async #createWriters(): Promise<void> {
    for (let i = 0; i < DEVICES; i++) this.#devices.push(new Device(`pi-${i}`, STREAM, [this.#ports.mqtt]));
    for (let i = 0; i < CLIENTS; i++)
      this.#clients.push(new ApiWriter(`api-${i}`, STREAM, [this.#newClient()]));
  }

  #newClient(timeoutMs?: number): KinesisClient {
    return kinesisClient(this.#ports.http, KEY, timeoutMs);
  }

  async #harm(): Promise<void> {
    const { seconds, say } = this.#options;
    const kinds: Fault[] = this.#disk === undefined ? ["kill"] : ["kill", "power-cut", "full-disk"];
    const began = performance.now();
    // On a slow machine one start may take all the time that there is.
    for (let round = 0; round < kinds.length || performance.now() - began < seconds * 1_000; round++) {
      await wait(300 + this.#random() * 1_700);
      // Each kind comes in turn at first, so that a short run has had them all.
      const fault = kinds[round < kinds.length ? round : Math.floor(this.#random() * kinds.length)]!;
      say(`${((performance.now() - began) / 1_000).toFixed(1)} s: ${fault}`);
      this.#faults[fault]++;
      if (fault === "full-disk") await this.#fillDisk();
      else await this.#crash(fault);
    }
  }

  async #crash(fault: Fault): Promise<void> {
    if (fault === "power-cut") await this.#disk!.cutPower(this.#gateway!.pid);
    await this.#gateway!.kill();
    if (fault === "power-cut") {
      await eventually("nobody has a file open on the disk", UNMOUNT_MS, async () => {
        await this.#disk!.unmount();
        return true;
      });
      await this.#disk!.mount();
    }
    await wait(this.#random() * 500);
    await this.#start();
  }

  /** Writes go on being tried; when room is back they must succeed again by themselves. */
  async #fillDisk(): Promise<void> {
    const filler = join(this.#disk!.path, "filler");
    const file = await open(filler, "w");
    try {
      const block = Buffer.alloc(1_048_576);
      // A write that finds less room than it needs writes that much; the next one fails.
      for (;;) await file.write(block);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    } finally {
      await file.close();
    }
    await wait(1_000 + this.#random() * 1_000);
    const { bavail } = await statfs(this.#disk!.path);
    this.#options.say(`       ${bavail} blocks were free; making room again`);
    await rm(filler);
    const before = this.#clients.map(({ acknowledged }) => acknowledged.size);
    await eventually("writes succeed again after the disk was full", SETTLE_MS, async () =>
      this.#clients.every(({ acknowledged }, i) => acknowledged.size > before[i]!) ? true : undefined,
    );
  }

  async #settle(): Promise<void> {
    await eventually("enough is acknowledged to prove something", SETTLE_MS, async () => {
      const { acknowledgedFrames, acknowledgedPuts } = this.verdict().compared;
      return acknowledgedFrames! > LEAST_FRAMES && acknowledgedPuts! > LEAST_PUTS ? true : undefined;
    });
    for (const writer of [...this.#devices, ...this.#clients]) writer.finish();
    await eventually("all that was sent is acknowledged", SETTLE_MS, async () =>
      [...this.#devices, ...this.#clients].every((writer) => writer.idle) ? true : undefined,
    );
  }

  async #readAll(): Promise<string[]> {
    const client = this.#newClient(READ_WITHIN_MS);
    try {
      return await readStream(client, STREAM);
    } finally {
      client.destroy();
    }
  }

  #judge(texts: readonly string[]): void {
    this.#read = texts.length;
    const verdict = judgeRecords(texts, this.#devices, this.#clients);
    this.#lost += verdict.lost;
    this.#doubled += verdict.doubled;
    this.#corrupted += verdict.corrupted;
    for (const finding of verdict.findings) this.#find(finding);
  }

  async #flipBytes(before: readonly string[]): Promise<void> {
    const { say } = this.#options;
    const ended = await this.#gateway!.stop(SETTLE_MS);
    if (ended !== 0) this.#find(`the gateway ended with ${ended} instead of 0`);
    const streams = join(this.#dataDir, "streams");
    const sound = await verifyLocalStreams(streams);
    for (const { file, detail } of sound.findings) this.#corrupt(`before any flip, ${file}: ${detail}`);
    for (let i = 0; i < FLIPS; i++) await this.#flipOne(join(streams, "logs"));
    const report = await verifyLocalStreams(streams);
    const damages = report.findings.filter(({ kind }) => kind === "damage").length;
    this.#damagedRecords = sound.records - report.records;
    say(`${FLIPS} bytes flipped: ${damages} places reported, ${this.#damagedRecords} records in them`);
    await this.#start();
    const after = await this.#readAll();
    const known = new Set(before);
    for (const text of after) if (!known.has(text)) this.#corrupt(`after a flip: ${text.slice(0, 80)}`);
    const gone = before.length - after.length;
    if (gone !== this.#damagedRecords) {
      this.#corrupt(`${gone} records are gone, and ${this.#damagedRecords} were reported`);
    }
  }

  /** A bit of a random byte behind a segment's head. */
  async #flipOne(logs: string): Promise<void> {
    const files = (await readdir(logs, { recursive: true })).filter((name) => name.endsWith(".log")).sort();
    const path = join(logs, files[Math.floor(this.#random() * files.length)]!);
    const { size } = await stat(path);
    if (size <= 64) return;
    const position = 64 + Math.floor(this.#random() * (size - 64));
    const file = await open(path, "r+");
    try {
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, position);
      byte[0] = byte[0]! ^ (1 << Math.floor(this.#random() * 8));
      await file.write(byte, 0, 1, position);
      this.#flippedBytes++;
    } finally {
      await file.close();
    }
  }

  #corrupt(finding: string): void {
    this.#corrupted++;
    this.#find(finding);
  }

  #find(finding: string): void {
    if (this.#findings.length < 50) this.#findings.push(finding);
  }
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
