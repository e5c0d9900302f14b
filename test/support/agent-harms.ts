/**
 * What happens to an agent in the field, at random moments and several things at a time:
 *
 *   machines  agent and gateway are killed, the agent's power is cut, its disk is full, its clock jumps
 *   network   connections are cut, cut within a packet, stalled, delayed, half closed, forgotten, throttled
 *   wires     the board's plug is pulled; the camera hangs, and is killed
 *
 * Each kind comes in turn at first, so that a short run has had them all.
 */
import { open, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { type AgentRig, MIN_FREE_BYTES, PROXIES } from "./agent-rig.ts";
import type { AgentVerdict } from "./agent-verdict.ts";
import type { FootageWatch } from "./footage-watch.ts";
import type { JumpingClock } from "./jumping-clock.ts";
import { eventually } from "./program.ts";

export interface HarmsOptions {
  readonly rig: AgentRig;
  readonly random: () => number;
  readonly verdict: AgentVerdict;
  readonly footage: FootageWatch;
  /** Where the agent's clock can be set. */
  readonly clock: JumpingClock | undefined;
  readonly say: (line: string) => void;
  /** How many times longer than promised things may take, on a machine that does much else. */
  readonly patience: number;
}

interface Harm {
  readonly name: string;
  readonly run: () => Promise<void>;
}

/** Footage flows again so soon after its camera is back. */
const CAMERA_BACK_MS = 10_000;
/** Everybody who waits for room gets on so soon after there is some. */
const ROOM_BACK_MS = 40_000;
const READY_MS = 90_000;
/** A start takes about so long. */
const BOOT_MS = 1_500;
const HOUR_MS = 3_600_000;

export class Harms {
  readonly #options: HarmsOptions;
  #beganMs = 0;
  #endMs = 0;
  /** Harms under way of which footage may suffer, and when the last of them ended. */
  #disturbing = 0;
  #calmSinceMs = 0;

  constructor(options: HarmsOptions) {
    this.#options = options;
  }

  /** Resolves when all are over and everything runs again. */
  async run(seconds: number): Promise<void> {
    this.#beganMs = performance.now();
    this.#endMs = this.#beganMs + seconds * 1_000;
    // Where one of them fails the others still end what they began, so that nothing is started behind our back.
    const ends = await Promise.allSettled([
      this.#track(this.#machines(), 500, 2_500),
      this.#track(this.#network(), 200, 1_500),
      this.#track(this.#wires(), 500, 2_000),
    ]);
    for (const name of PROXIES) this.#options.rig.proxy(name).restore();
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }

  async #track(kinds: readonly Harm[], leastPauseMs: number, mostPauseMs: number): Promise<void> {
    for (let round = 0; ; round++) {
      await wait(this.#between(leastPauseMs, mostPauseMs));
      if (performance.now() >= this.#endMs) return;
      const { name, run } = kinds[round < kinds.length ? round : Math.floor(this.#between(0, kinds.length))]!;
      this.#say(name);
      this.#options.verdict.count(name);
      await run();
    }
  }

  #machines(): Harm[] {
    const { rig, clock } = this.#options;
    const kinds: Harm[] = [
      { name: "kill agent", run: () => this.#disturb(() => this.#killAgent()) },
      { name: "kill agent at boot", run: () => this.#disturb(() => this.#killAtBoot()) },
      { name: "kill gateway", run: () => this.#killGateway() },
    ];
    if (rig.disk !== undefined) {
      kinds.push({ name: "power cut", run: () => this.#disturb(() => this.#cutPower()) });
      kinds.push({ name: "full disk", run: () => this.#disturb(() => this.#fillDisk()) });
    }
    if (clock !== undefined)
      kinds.push({ name: "clock jump", run: () => this.#disturb(() => this.#jump(clock)) });
    return shuffled(kinds, this.#options.random);
  }

  async #killAgent(): Promise<void> {
    const { agent } = this.#options.rig;
    await agent.kill();
    await wait(this.#between(0, 1_500));
    agent.start();
    await this.#agentReady();
  }

  /** What a start mends and moves is not half done for good. */
  async #killAtBoot(): Promise<void> {
    const { agent } = this.#options.rig;
    for (let i = 0; i < 3; i++) {
      await agent.kill();
      agent.start();
      await wait(this.#between(0, BOOT_MS));
    }
    await this.#agentReady();
  }

  async #killGateway(): Promise<void> {
    const { gateway } = this.#options.rig;
    await gateway.kill();
    await wait(this.#between(0, 2_500));
    gateway.start();
    await within(READY_MS, "the gateway is ready", gateway.ready());
  }

  async #cutPower(): Promise<void> {
    const { rig } = this.#options;
    await rig.cutPower();
    await wait(this.#between(0, 800));
    rig.agent.start();
    await this.#agentReady();
  }

  /** Nothing is left at all, or less than the agent wants to be left. */
  async #fillDisk(): Promise<void> {
    const { rig } = this.#options;
    const leaveBytes = this.#between(0, 1) < 0.5 ? 0 : MIN_FREE_BYTES / 2;
    const balloon = join(rig.disk!.path, "balloon");
    await fill(balloon, rig.disk!.path, leaveBytes);
    await wait(this.#between(1_000, 3_000));
    await rm(balloon);
    this.#say(`there is room again on the disk, of which ${leaveBytes} bytes were left`);
    await this.#agentReady();
    const before = rig.sources.map(({ acknowledged }) => acknowledged);
    const roomMs = ROOM_BACK_MS * this.#options.patience;
    await eventually("everybody gets on after the disk was full", roomMs, async () =>
      rig.sources.every(({ acknowledged }, i) => acknowledged > before[i]!) ? true : undefined,
    ).catch((error: Error) => this.#options.verdict.find("wrong", error.message));
  }

  async #jump(clock: JumpingClock): Promise<void> {
    const offsets = [HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS, 0];
    const offsetMs = offsets[Math.floor(this.#between(0, offsets.length))]!;
    await clock.setOffset(offsetMs);
    this.#say(`the agent's clock is ${offsetMs / HOUR_MS} h off`);
    await wait(this.#between(500, 2_000));
  }

  #network(): Harm[] {
    const proxy = () => {
      const name = PROXIES[Math.floor(this.#between(0, PROXIES.length))]!;
      this.#say(`  at the proxy of ${name}`);
      return this.#options.rig.proxy(name);
    };
    const holds = async (leastMs: number, mostMs: number, harm: (of: ReturnType<typeof proxy>) => void) => {
      const chosen = proxy();
      await this.#disturb(async () => {
        harm(chosen);
        await wait(this.#between(leastMs, mostMs));
        chosen.restore();
      });
    };
    const direction = () => (this.#between(0, 1) < 0.5 ? "up" : "down");
    const kinds: Harm[] = [
      { name: "cut", run: () => holds(0, 0, (of) => of.cut()) },
      {
        name: "cut in a packet",
        run: () => holds(500, 1_500, (of) => of.cutAfter(this.#between(1, 20_000), direction())),
      },
      { name: "stall", run: () => holds(500, 4_000, (of) => of.stall()) },
      { name: "stall one way", run: () => holds(500, 4_000, (of) => of.stall([direction()])) },
      {
        name: "delay",
        run: () => holds(1_000, 4_000, (of) => of.setQuality({ delayMs: 200, jitterMs: 300 })),
      },
      { name: "half close", run: () => holds(0, 500, (of) => of.halfClose(direction())) },
      { name: "black hole", run: () => holds(500, 3_000, (of) => of.blackhole()) },
      {
        name: "refuse",
        run: () =>
          holds(500, 2_000, (of) => {
            of.refuse();
            of.cut();
          }),
      },
      {
        name: "narrow line",
        run: () => holds(1_000, 4_000, (of) => of.setQuality({ bytesPerSecond: 20_000 })),
      },
    ];
    return shuffled(kinds, this.#options.random);
  }

  #wires(): Harm[] {
    const { rig } = this.#options;
    const kinds: Harm[] = [
      {
        name: "board unplugged",
        run: async () => {
          await rig.boardFault({ fault: "unplug-board" });
          await wait(this.#between(300, 2_000));
          await rig.boardFault({ fault: "plug-board" });
        },
      },
      { name: "camera hangs", run: () => this.#hangCamera() },
      { name: "camera killed", run: () => this.#killCamera() },
    ];
    return shuffled(kinds, this.#options.random);
  }

  /** Its connections stay open, and nothing comes. */
  async #hangCamera(): Promise<void> {
    const { pid } = this.#options.rig.camera;
    process.kill(pid, "SIGSTOP");
    await wait(this.#between(4_000, 7_000));
    process.kill(pid, "SIGCONT");
    await this.#footageIsBack("it hung");
  }

  async #killCamera(): Promise<void> {
    const { camera } = this.#options.rig;
    await camera.kill();
    await wait(this.#between(500, 3_000));
    camera.start();
    await within(READY_MS, "the camera is ready", camera.ready());
    await this.#footageIsBack("it was killed");
  }

  /** What else happens to agent, disk and network meanwhile is not the camera source's fault. */
  async #footageIsBack(why: string): Promise<void> {
    const { footage, verdict, patience } = this.#options;
    const withinMs = CAMERA_BACK_MS * patience;
    const backMs = performance.now();
    const before = await footage.stored();
    for (;;) {
      if ((await footage.stored()) > before) break;
      const calmMs = performance.now() - Math.max(backMs, this.#calmSinceMs);
      if (this.#disturbing === 0 && calmMs > withinMs) {
        verdict.find("wrong", `no footage for ${withinMs / 1_000} s after the camera was back (${why})`);
        return;
      }
      await wait(100);
    }
    this.#say(
      `footage flows ${((performance.now() - backMs) / 1_000).toFixed(1)} s after the camera was back`,
    );
  }

  async #disturb(harm: () => Promise<void>): Promise<void> {
    this.#disturbing++;
    try {
      await harm();
    } finally {
      this.#disturbing--;
      this.#calmSinceMs = performance.now();
    }
  }

  async #agentReady(): Promise<void> {
    await within(READY_MS, "the agent is ready", this.#options.rig.agent.ready());
  }

  #between(least: number, most: number): number {
    return least + this.#options.random() * (most - least);
  }

  #say(what: string): void {
    this.#options.say(`${((performance.now() - this.#beganMs) / 1_000).toFixed(1)} s: ${what}`);
  }
}

/** Until only so much room is left. */
async function fill(balloon: string, folder: string, leaveBytes: number): Promise<void> {
  const file = await open(balloon, "w");
  try {
    const { bavail, bsize } = await statfs(folder);
    const block = Buffer.alloc(1_048_576);
    let left = leaveBytes === 0 ? Number.POSITIVE_INFINITY : bavail * bsize - leaveBytes;
    for (; left > 0; left -= block.length) await file.write(block, 0, Math.min(block.length, left));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  } finally {
    await file.close();
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
