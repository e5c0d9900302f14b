/** The live picture of a camera, how far it is behind, and the newest footage that is stored. */
import type { CameraStatus, FootageFragment, GatewayState } from "./contract.ts";
import { byId, element, setText, updateSelect } from "./elements.ts";
import { fetchFootage, fragmentAddress, liveCameraAddress } from "./gateway-client.ts";
import { LivePlayer } from "./live-player.ts";
import { LiveSocket } from "./live-socket.ts";
import * as units from "./units.ts";

const NO_CAMERA = "No camera yet: add a camera source to agent.yaml.";
const FOOTAGE_EVERY_MS = 5_000;
const FOOTAGE_SPAN_US = 30_000_000;
const FOOTAGE_SHOWN = 4;
const LATENCY_MS = 500;
const PRODUCER_TIME_BYTES = 8;

export class CameraView {
  readonly #select = byId<HTMLSelectElement>("camera-name");
  readonly #video = byId<HTMLVideoElement>("camera-video");
  readonly #message = byId("camera-message");
  readonly #latency = byId("camera-latency");
  readonly #detail = byId("camera-detail");
  readonly #footage = byId("camera-footage");
  #cameras: readonly CameraStatus[] = [];
  #watched: string | undefined;
  #socket: LiveSocket | undefined;
  #player: LivePlayer | undefined;
  #nextMimeType: string | undefined;
  #clockAheadMs = 0;
  #timer: number | undefined;
  #footageDueMs = 0;
  #footageShown = "";

  constructor() {
    this.#select.addEventListener("change", () => {
      this.#footageDueMs = 0;
      this.#watch();
    });
  }

  async update({ cameras, nowMs }: GatewayState): Promise<void> {
    this.#clockAheadMs = nowMs - Date.now();
    this.#cameras = cameras;
    updateSelect(
      this.#select,
      cameras.map(({ camera }) => camera),
      cameras.find(({ live }) => live)?.camera,
    );
    this.#watch();
    const camera = this.#chosen();
    setText(this.#detail, camera === undefined ? "" : describe(camera, nowMs));
    await this.#updateFootage(camera, nowMs);
  }

  /** The page is hidden, or signed out. */
  stop(): void {
    this.#socket?.close();
    this.#socket = undefined;
    this.#player?.close();
    this.#player = undefined;
    this.#watched = undefined;
    this.#latency.hidden = true;
    clearInterval(this.#timer);
  }

  #chosen(): CameraStatus | undefined {
    return this.#cameras.find(({ camera }) => camera === this.#select.value);
  }

  #watch(): void {
    const name = this.#chosen()?.camera;
    if (name === undefined) this.#say(NO_CAMERA);
    if (name === this.#watched) return;
    this.stop();
    this.#watched = name;
    if (name === undefined) return;
    this.#say("Waiting for the first picture…");
    this.#timer = window.setInterval(() => this.#showLatency(), LATENCY_MS);
    this.#socket = new LiveSocket(liveCameraAddress(name), {
      onText: (text) => {
        const said = JSON.parse(text) as { type?: string; mimeType?: string };
        if (said.type === "init" && typeof said.mimeType === "string") this.#nextMimeType = said.mimeType;
      },
      onBinary: (bytes) => this.#take(bytes),
      onLost: () => {
        this.#player?.close();
        this.#player = undefined;
        this.#say("Connection to the camera lost, retrying…");
      },
    });
  }

  /** The bytes behind an `init` are the init segment; all others begin with the producer's time. */
  #take(bytes: ArrayBuffer): void {
    const mimeType = this.#nextMimeType;
    if (mimeType !== undefined) {
      this.#nextMimeType = undefined;
      this.#player?.close();
      this.#player = undefined;
      if (!LivePlayer.canPlay(mimeType)) {
        this.#say(`This browser cannot play ${mimeType}. The footage is stored all the same.`);
        return;
      }
      this.#player = new LivePlayer(this.#video, mimeType, (reason) => {
        this.#player = undefined;
        this.#say(`The picture stopped: ${reason}. Choose the camera again, or reload the page.`);
      });
      this.#player.append(bytes, undefined);
      return;
    }
    if (this.#player === undefined || bytes.byteLength <= PRODUCER_TIME_BYTES) return;
    const producerUs = Number(new DataView(bytes).getBigUint64(0));
    this.#player.append(bytes.slice(PRODUCER_TIME_BYTES), producerUs);
  }

  #showLatency(): void {
    const camera = this.#chosen();
    const shownUs = this.#player?.shownUs;
    const behindMs = shownUs === undefined ? undefined : Date.now() + this.#clockAheadMs - shownUs / 1_000;
    this.#latency.hidden = behindMs === undefined;
    if (behindMs !== undefined) setText(this.#latency, `${units.duration(behindMs)} behind`);
    if (camera !== undefined && !camera.live) {
      this.#say(`${camera.camera} sends no picture now. What it sent is stored.`);
    } else if (behindMs !== undefined) this.#say("");
  }

  #say(text: string): void {
    setText(this.#message, text);
    this.#message.hidden = text === "";
  }

  async #updateFootage(camera: CameraStatus | undefined, nowMs: number): Promise<void> {
    if (performance.now() < this.#footageDueMs) return;
    const newestUs = camera?.newestUs;
    let fragments: FootageFragment[] = [];
    if (camera !== undefined && newestUs !== undefined) {
      this.#footageDueMs = performance.now() + FOOTAGE_EVERY_MS;
      fragments = await fetchFootage(camera.camera, newestUs - FOOTAGE_SPAN_US, newestUs + 1);
    }
    if (camera?.camera !== this.#watched) return;
    const shown = fragments
      .filter(({ state }) => state !== "quarantined")
      .slice(-FOOTAGE_SHOWN)
      .reverse();
    const key = JSON.stringify([camera?.camera, shown.map(({ id }) => id)]);
    if (key === this.#footageShown) return;
    this.#footageShown = key;
    const links = shown.map(({ id, producerUs, durationUs, bytes }) =>
      element("a", {
        text: `${units.time(producerUs / 1_000, nowMs)}, ${units.duration(durationUs / 1_000)}, ${units.bytes(bytes)}`,
        attributes: { href: fragmentAddress(camera?.camera ?? "", id), target: "_blank", rel: "noopener" },
      }),
    );
    const title = element("span", { class: "quiet", text: "Newest footage:" });
    this.#footage.replaceChildren(...(links.length > 0 ? [title, ...links] : []));
  }
}

function describe(camera: CameraStatus, nowMs: number): string {
  const { codec, width, height, fragments, storedBytes, oldestUs, quarantined, viewers } = camera;
  const facts: string[] = [];
  if (width !== undefined && height !== undefined) facts.push(`${width}×${height}`);
  if (codec !== undefined) facts.push(codec);
  facts.push(`${units.counted(fragments, "fragment")}, ${units.bytes(storedBytes)}`);
  if (oldestUs !== undefined) facts.push(`since ${units.time(oldestUs / 1_000, nowMs)}`);
  if (quarantined > 0) facts.push(`${units.count(quarantined)} in quarantine`);
  facts.push(units.counted(viewers, "viewer"));
  return facts.join(" · ");
}
