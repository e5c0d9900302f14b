/**
 * How the device itself fares: processor, load, memory, temperature, file systems, network. One record
 * for the machine, and one for each file system and interface:
 *
 *   <name>   <name>/disk/<mount>   <name>/net/<interface>
 *
 * A figure that a machine does not have, such as a temperature, is left out.
 */
import { readdir, readFile, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { HostSourceConfig } from "../../config/source-config.ts";
import { pause } from "../../runtime/backoff.ts";
import { Assembly } from "./assembly.ts";
import {
  type CpuTimes,
  celsius,
  cpuPercent,
  cpuTimes,
  type Figures,
  loadFigures,
  memoryFigures,
  type NetworkCounters,
  networkCounters,
  networkFigures,
  rounded,
} from "./decode/host-figures.ts";
import type { SensorReading, Source, SourceParts, SourceReport } from "./source.ts";
import type { Life } from "./supervisor.ts";

export interface HostSourceOptions extends SourceParts {
  readonly config: HostSourceConfig;
  /** Where proc and sys are; `/` unless given. */
  readonly root?: string;
}

/** What the next figures are compared with. */
interface Before {
  readonly cpu: CpuTimes | undefined;
  readonly network: ReadonlyMap<string, NetworkCounters>;
  readonly atMs: number;
}

const MAX_ZONES = 32;

export class HostSource implements Source {
  readonly #options: HostSourceOptions;
  readonly #root: string;
  readonly #assembly: Assembly;

  constructor(options: HostSourceOptions) {
    this.#options = options;
    this.#root = options.root ?? "/";
    this.#assembly = new Assembly(options, (life) => this.#live(life));
  }

  get name(): string {
    return this.#options.config.name;
  }

  async start(): Promise<void> {
    void this.#assembly.start();
  }

  async #live(life: Life): Promise<void> {
    const { clock, config } = this.#options;
    let before = await this.#counters();
    while (!life.signal.aborted) {
      life.running();
      await pause(config.everySeconds * 1_000, life.signal);
      if (life.signal.aborted) return;
      const now = await this.#counters();
      const arrivalUs = clock.nowUs();
      const readings = [
        await this.#machine(before, now),
        ...(await this.#disks()),
        ...this.#network(before, now),
      ];
      await this.#assembly.intake.store(
        readings.map((reading) => ({ reading, arrivalUs })),
        life.signal,
      );
      life.fed();
      before = now;
    }
  }

  async #counters(): Promise<Before> {
    const [stat, dev] = await Promise.all([this.#read("proc/stat"), this.#read("proc/net/dev")]);
    return { cpu: cpuTimes(stat), network: networkCounters(dev), atMs: this.#options.clock.monotonicMs() };
  }

  async #machine(before: Before, now: Before): Promise<SensorReading> {
    const [load, memory, uptime, temperatures] = await Promise.all([
      this.#read("proc/loadavg"),
      this.#read("proc/meminfo"),
      this.#read("proc/uptime"),
      this.#temperatures(),
    ]);
    const cpu = before.cpu && now.cpu && cpuPercent(before.cpu, now.cpu);
    const seconds = Number.parseFloat(uptime);
    return this.#reading("", {
      ...(cpu !== undefined && { cpu_percent: cpu }),
      ...loadFigures(load),
      ...memoryFigures(memory),
      ...temperatures,
      ...(Number.isFinite(seconds) && { uptime_seconds: seconds }),
    });
  }

  /** The hottest zone as `temperature_c`, and each by its kind. */
  async #temperatures(): Promise<Figures> {
    const folder = join(this.#root, "sys/class/thermal");
    const zones = (await readdir(folder).catch(() => [])).filter((name) => name.startsWith("thermal_zone"));
    const found: [string, number][] = [];
    for (const zone of zones.slice(0, MAX_ZONES)) {
      const value = celsius(await this.#read(`sys/class/thermal/${zone}/temp`));
      const kind = (await this.#read(`sys/class/thermal/${zone}/type`)).trim() || zone;
      if (value !== undefined)
        found.push([`temperature_${kind.replace(/[^A-Za-z0-9]+/g, "_").slice(0, 60)}_c`, value]);
    }
    if (found.length === 0) return {};
    return { temperature_c: Math.max(...found.map(([, value]) => value)), ...Object.fromEntries(found) };
  }

  async #disks(): Promise<SensorReading[]> {
    const readings: SensorReading[] = [];
    for (const mount of this.#options.config.disks) {
      try {
        const { blocks, bfree, bavail, bsize, files, ffree } = await statfs(mount);
        // As df counts: what is kept for root is neither used nor free.
        const usable = blocks - bfree + bavail;
        readings.push(
          this.#reading(`/disk${mount}`, {
            total_bytes: blocks * bsize,
            free_bytes: bavail * bsize,
            ...(usable > 0 && { used_percent: rounded((100 * (blocks - bfree)) / usable) }),
            ...(files > 0 && { inodes_used_percent: rounded((100 * (files - ffree)) / files) }),
          }),
        );
      } catch (error) {
        this.#assembly.meters.fault(`${mount}: ${(error as NodeJS.ErrnoException).code ?? error}`);
      }
    }
    return readings;
  }

  #network(before: Before, now: Before): SensorReading[] {
    const { interfaces } = this.#options.config;
    const seconds = (now.atMs - before.atMs) / 1_000;
    return [...now.network].flatMap(([name, counters]) => {
      const last = before.network.get(name);
      const wanted = interfaces === undefined ? name !== "lo" : interfaces.includes(name);
      if (!wanted || last === undefined) return [];
      return [this.#reading(`/net/${name}`, networkFigures(last, counters, seconds))];
    });
  }

  #reading(part: string, fields: Figures): SensorReading {
    return { sensor: this.name + part, timeUs: undefined, fields };
  }

  /** Empty where there is none. */
  #read(path: string): Promise<string> {
    return readFile(join(this.#root, path), "utf8").catch(() => "");
  }

  status(): SourceReport {
    return this.#assembly.report();
  }

  async close(): Promise<void> {
    await this.#assembly.close();
  }
}
