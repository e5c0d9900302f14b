/** The first look: is all well, and the five numbers that say how much is going on. */
import type { GatewayState } from "./contract.ts";
import { byId, element, setText, setTone, type Tone } from "./elements.ts";
import * as units from "./units.ts";

interface Tile {
  readonly title: string;
  /** The number, what it counts, and how it should strike the eye. */
  readonly read: (state: GatewayState) => readonly [value: string, detail: string, tone?: Tone | undefined];
}

const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0);

const TILES: readonly Tile[] = [
  {
    title: "Coming in",
    read: ({ streams }) => [
      units.rate(sum(streams, ({ shards }) => sum(shards, ({ recordsPerSecond }) => recordsPerSecond))),
      `records, ${units.counted(streams.length, "stream")}`,
    ],
  },
  {
    title: "Devices",
    read: ({ devices }) => {
      const connected = devices.filter((device) => device.connected).length;
      const detail = connected === devices.length ? "all connected" : `of ${devices.length} connected`;
      if (devices.length === 0) return ["0", "none yet", "quiet"];
      return [units.count(connected), detail, connected < devices.length ? "warn" : undefined];
    },
  },
  {
    title: "Waiting on devices",
    read: ({ devices }) => [
      units.count(sum(devices, ({ status }) => status?.buffer.waitingRecords ?? 0)),
      `records, ${units.bytes(sum(devices, ({ status }) => (status?.buffer.waitingBytes ?? 0) + (status?.footage?.waitingBytes ?? 0)))} with footage`,
    ],
  },
  {
    title: "Delivered",
    read: ({ deliveries }) => [
      units.count(sum(deliveries, ({ deliveredRecords }) => deliveredRecords)),
      `records, ${units.counted(
        sum(deliveries, ({ deliveredObjects }) => deliveredObjects),
        "file",
      )}`,
    ],
  },
  {
    title: "Footage",
    read: ({ cameras }) => [
      units.bytes(sum(cameras, ({ storedBytes }) => storedBytes)),
      `${cameras.filter(({ live }) => live).length} of ${units.counted(cameras.length, "camera")} live`,
    ],
  },
];

export class Overview {
  readonly #health = byId("health");
  readonly #version = byId("version");
  readonly #tiles = TILES.map((tile) => {
    const value = element("dd", { class: "tile-value" });
    const detail = element("dd", { class: "tile-detail quiet" });
    const root = element("div", { class: "tile" }, element("dt", { text: tile.title }), value, detail);
    return { tile, root, value, detail };
  });

  constructor() {
    byId("tiles").replaceChildren(...this.#tiles.map(({ root }) => root));
  }

  update(state: GatewayState): void {
    setText(this.#version, state.version);
    for (const { tile, value, detail } of this.#tiles) {
      const [text, what, tone] = tile.read(state);
      setText(value, text);
      setText(detail, what);
      setTone(detail, tone);
    }
    const problems = problemsOf(state);
    if (problems.length > 0) this.say(inShort(problems), "warn");
    else if (state.devices.length === 0) this.say("Ready, no device yet", "quiet");
    else this.say("All is well", "good");
  }

  say(text: string, tone: Tone): void {
    setText(this.#health, text);
    setTone(this.#health, tone);
  }
}

function inShort(problems: readonly string[]): string {
  const more = problems.length > 2 ? `; and ${problems.length - 2} more` : "";
  return `${problems.slice(0, 2).join("; ")}${more}`;
}

/** In plain words; without numbers that change each second, as a screen reader reads every change aloud. */
export function problemsOf(state: GatewayState): string[] {
  const problems: string[] = [];
  if (state.unreachable !== null) problems.push(state.unreachable);
  for (const { device, connected, status } of state.devices) {
    if (!connected) problems.push(`${device} is not connected`);
    else {
      for (const source of status?.sources ?? []) {
        if (source.state !== "running")
          problems.push(`source ${source.name} of ${device} is ${source.state}`);
      }
    }
    if ((status?.buffer.droppedRecords ?? 0) > 0) problems.push(`${device} had to drop records`);
  }
  for (const { camera, live } of state.cameras) if (!live) problems.push(`camera ${camera} is not live`);
  for (const { name, lastError } of state.deliveries) if (lastError) problems.push(`delivery ${name} fails`);
  for (const { name, state: now } of state.statements)
    if (now === "failed") problems.push(`statement ${name} failed`);
  for (const { name, damagedBytes, refusing } of state.streams) {
    if (damagedBytes > 0) problems.push(`the log of stream ${name} is damaged`);
    if (refusing !== null) problems.push(refusing);
  }
  if (state.quarantine.publishes > 0) {
    const reason = state.quarantine.lastReason;
    problems.push(`publishes are in quarantine${reason === undefined ? "" : `, the last for: ${reason}`}`);
  }
  return problems;
}
