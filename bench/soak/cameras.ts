/**
 * The cameras: `yard` stays, over TLS under its device's name; `porch` comes and goes at the plain port; `gate`
 * comes and goes over TLS and sends units as an agent does: it keeps each until the gateway lists it as
 * persisted, sends the others again after it was cut off in the middle of one, and some twice.
 */
import { randomBytes } from "node:crypto";
import type { ConnectionOptions } from "node:tls";
import { encodeUnitBegin, encodeUnitEnd, parsePersisted, unitDigest } from "../../protocol/footage.ts";
import { RtspClient } from "../../protocol/rtsp/client-session.ts";
import { type Ledger, Producer } from "./ledger.ts";
import type { Loops } from "./loops.ts";
import { CAMERA_SDP, PictureStream } from "./pictures.ts";
import { type SoakPlace, TLS_DEVICE } from "./soak-place.ts";

/** Streams of the ledger, too: what a camera sent is what its archive must hold. */
export const CAMERAS = ["yard", "porch", "gate"] as const;

const MS = { picture: 100, porch: 10_000, gate: 15_000, persisted: 250 };
const PICTURES_PER_GROUP = 20;
/** Pictures of one RTP time would be one. */
const LEAST_APART_US = 10_000;
const PICTURE_BYTES = 500;
/** Larger than a packet may be. */
const KEY_FRAME_BYTES = 2_500;
const PORCH_PICTURES = 45;
/** Made while it was away, each of a second. */
const GATE_UNITS = 5;
const GATE_PICTURES = 10;
const PERSISTED_WITHIN_MS = 30_000;

/** A unit as its camera holds it until it is persisted. */
interface HeldUnit {
  readonly sequence: bigint;
  readonly producerUs: number;
  readonly packets: readonly Buffer[];
  readonly report: Buffer;
}

export class Cameras {
  /** Times that one came. */
  visits = 0;
  readonly #place: SoakPlace;
  readonly #loops: Loops;
  readonly #yard: Producer;
  readonly #porch: Producer;
  readonly #gate: Producer;
  #yardSession: PublishedCamera | undefined;
  #epoch = newEpoch();
  #held: HeldUnit[] = [];
  #units = 0n;
  #gateStream = new PictureStream();

  constructor(place: SoakPlace, ledger: Ledger, loops: Loops) {
    this.#place = place;
    this.#loops = loops;
    [this.#yard, this.#porch, this.#gate] = CAMERAS.map((camera) => new Producer(ledger, camera, camera)) as [
      Producer,
      Producer,
      Producer,
    ];
  }

  /** `yard` can be read when it resolves. */
  async start(): Promise<void> {
    this.#yardSession = await this.#openYard();
    this.#loops.every("camera yard", MS.picture, () => this.#stay());
    this.#loops.every("camera porch", MS.porch, () => this.#pass());
    this.#loops.every("camera gate", MS.gate, () => this.#bringUnits());
  }

  /** Once the loops are stopped: `yard` leaves, and all that it sent is in the ledger. */
  async close(): Promise<void> {
    const session = this.#yardSession;
    if (session === undefined) return;
    this.#yardSession = undefined;
    await session.taken();
    this.#yard.acknowledged();
    await session.leave();
  }

  #openYard(): Promise<PublishedCamera> {
    this.visits++;
    const { rtspsPort, deviceTls } = this.#place;
    return PublishedCamera.open(`rtsps://127.0.0.1:${rtspsPort}/${TLS_DEVICE}/yard`, deviceTls);
  }

  async #stay(): Promise<void> {
    try {
      this.#yardSession ??= await this.#openYard();
      await this.#yardSession.sendNext(this.#yard);
    } catch (error) {
      this.#yardSession?.cut();
      this.#yardSession = undefined;
      this.#yard.failed();
      throw error;
    }
  }

  async #pass(): Promise<void> {
    const session = await PublishedCamera.open(`rtsp://127.0.0.1:${this.#place.rtspPort}/porch`);
    this.visits++;
    try {
      for (let i = 0; i < PORCH_PICTURES && !this.#loops.stopped; i++) {
        await session.sendNext(this.#porch);
        await this.#loops.wait(MS.picture);
      }
      await session.taken();
      this.#porch.acknowledged();
    } catch (error) {
      this.#porch.failed();
      throw error;
    } finally {
      // What was taken is archived, however its camera goes.
      if (Math.random() < 0.5) session.cut();
      else await session.leave();
    }
  }

  async #bringUnits(): Promise<void> {
    const nowUs = Date.now() * 1_000;
    for (let i = GATE_UNITS; i > 0; i--) this.#held.push(this.#makeUnit(nowUs - i * 1_000_000));
    const { rtspsPort, deviceTls } = this.#place;
    try {
      const url = `rtsps://127.0.0.1:${rtspsPort}/${TLS_DEVICE}/gate`;
      const session = await PublishedCamera.open(url, deviceTls, this.#held[0]!.producerUs);
      this.visits++;
      try {
        await this.#sendUnits(session);
      } finally {
        session.cut();
      }
    } catch (error) {
      this.#gate.failed();
      this.#held = [];
      this.#epoch = newEpoch();
      this.#units = 0n;
      throw error;
    }
  }

  async #sendUnits(session: PublishedCamera): Promise<void> {
    await this.#forgetPersisted(session);
    const last = this.#held.at(-1)!;
    const isCutOff = Math.random() < 0.5;
    for (const unit of this.#held) this.#sendUnit(session, unit, isCutOff && unit === last);
    await session.taken();
    if (isCutOff) return;
    const end = performance.now() + PERSISTED_WITHIN_MS;
    for (;;) {
      await this.#forgetPersisted(session);
      if (this.#held.length === 0) break;
      if (performance.now() > end) throw new Error(`${this.#held.length} units are not persisted`);
      await this.#loops.wait(MS.persisted);
    }
    this.#gate.acknowledged();
    this.#sendUnit(session, last, false);
    await session.leave();
  }

  async #forgetPersisted({ client }: PublishedCamera): Promise<void> {
    const ranges = parsePersisted((await client.getParameter("persisted")) ?? "");
    const isPersisted = ({ sequence }: HeldUnit): boolean =>
      ranges.some(({ epoch, first, last }) => epoch === this.#epoch && first <= sequence && sequence <= last);
    this.#held = this.#held.filter((unit) => !isPersisted(unit));
  }

  #makeUnit(producerUs: number): HeldUnit {
    const packets = Array.from({ length: GATE_PICTURES }, (_, i) => {
      const record = this.#gate.next(i === 0 ? KEY_FRAME_BYTES : PICTURE_BYTES);
      return this.#gateStream.packets(record, i === 0, producerUs + i * 100_000);
    });
    const report = this.#gateStream.report(producerUs);
    return { sequence: ++this.#units, producerUs, packets: packets.flat(), report };
  }

  #sendUnit({ client }: PublishedCamera, unit: HeldUnit, half: boolean): void {
    const { sequence, producerUs, packets, report } = unit;
    const { ssrc } = this.#gateStream;
    const begin = { epoch: this.#epoch, sequence, producerUs, startsWithKeyFrame: true };
    client.sendRtcp(0, encodeUnitBegin(ssrc, begin));
    client.sendRtcp(0, report);
    for (const rtp of half ? packets.slice(0, packets.length >> 1) : packets) client.sendRtp(0, rtp);
    if (half) return;
    const sha256 = unitDigest(packets.map((rtp) => ({ track: 0, rtp })));
    client.sendRtcp(0, encodeUnitEnd(ssrc, { packetCount: packets.length, sha256 }));
  }
}

/** One session of a camera. */
export class PublishedCamera {
  readonly client: RtspClient;
  readonly #stream = new PictureStream();
  #pictures = 0;
  #lastUs = 0;

  constructor(client: RtspClient) {
    this.client = client;
  }

  /** @param clockUs producer time of what is sent first; now unless told */
  static async open(url: string, tls?: ConnectionOptions, clockUs?: number): Promise<PublishedCamera> {
    const client = new RtspClient({ url, tls });
    try {
      await client.connect();
      await client.announce(CAMERA_SDP);
      await client.setup("record");
      await client.record(clockUs);
    } catch (error) {
      await client.close();
      throw error;
    }
    return new PublishedCamera(client);
  }

  /** The producer's next picture. Before a key frame all that came before it is acknowledged. */
  async sendNext(producer: Producer): Promise<void> {
    const keyFrame = this.#pictures++ % PICTURES_PER_GROUP === 0;
    if (keyFrame) {
      await this.taken();
      producer.acknowledged();
    }
    const nowUs = Math.max(Date.now() * 1_000, this.#lastUs + LEAST_APART_US);
    this.#lastUs = nowUs;
    if (keyFrame) this.client.sendRtcp(0, this.#stream.report(nowUs));
    const record = producer.next(keyFrame ? KEY_FRAME_BYTES : PICTURE_BYTES);
    for (const rtp of this.#stream.packets(record, keyFrame, nowUs)) this.client.sendRtp(0, rtp);
  }

  /** Resolves when the gateway has taken in what was sent: the answer comes after it. */
  async taken(): Promise<void> {
    await this.client.getParameter("persisted");
  }

  leave(): Promise<void> {
    return this.client.close();
  }

  /** Without a TEARDOWN. */
  cut(): void {
    this.client.socket?.destroy();
  }
}

function newEpoch(): bigint {
  return randomBytes(8).readBigUInt64BE();
}
