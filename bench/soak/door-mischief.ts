/** Mischief at the RTSP port and at those with TLS. The gateway ends it, refuses it, or keeps what came of it. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { ConnectionOptions } from "node:tls";
import { connectAsync, type IClientOptions } from "mqtt";
import { PublishedCamera } from "./cameras.ts";
import type { Loops } from "./loops.ts";
import { CAMERA_SDP, PictureStream } from "./pictures.ts";
import { type SoakPlace, TLS_DEVICE } from "./soak-place.ts";
import { junk, opened, openedSecurely, within } from "./sockets.ts";

/** RFC 8446 §4.1.2: a ClientHello of 512 bytes in its record, of which this is the beginning. */
const HALF_HELLO = Buffer.from("16030102000100" + "01fc0303", "hex");
const TCP = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1";
const UDP = "Transport: RTP/AVP;unicast;client_port=5000-5001";

/** Requests of one connection, one after the other, and the status of each answer. Behind the method what ends the address. */
const WRONG_REQUESTS: ReadonlyArray<
  readonly [status: number, method: string, header?: string | undefined, body?: string]
> = [
  [455, "PLAY"],
  [455, "RECORD"],
  [501, "REDIRECT"],
  [404, "DESCRIBE"],
  [551, "OPTIONS", "Require: wonders"],
  [400, "ANNOUNCE", undefined, "v=0\r\n"],
  [415, "ANNOUNCE", "Content-Type: text/html", CAMERA_SDP],
  [200, "ANNOUNCE", undefined, CAMERA_SDP],
  [461, "SETUP /trackID=0", UDP],
  [404, "SETUP /trackID=1", TCP],
];

export class DoorMischief {
  readonly #place: SoakPlace;
  readonly #loops: Loops;
  #turn = 0;

  constructor(place: SoakPlace, loops: Loops) {
    this.#place = place;
    this.#loops = loops;
  }

  kinds(): Readonly<Record<string, () => Promise<void>>> {
    const { rtspPort } = this.#place;
    return {
      "junk over RTSP": () => junk(rtspPort, randomBytes(300)),
      "wrong RTSP requests": () => this.#wrongRequests(),
      "a cut ANNOUNCE": () => this.#cutAnnounce(),
      "a camera that dies in a picture": () => this.#dyingCamera(),
      "another device's camera": () => this.#announces(403, "somebody/yard", this.#place.deviceTls),
      "a camera without a password": () =>
        this.#announces(401, `${TLS_DEVICE}/yard`, { rejectUnauthorized: false }),
      "junk at a TLS port": () => junk(this.#tlsPort(), randomBytes(300)),
      "a cut handshake": () => this.#cutHandshake(),
      "a stranger's certificate": () => this.#stranger(),
      "a sensor without a password": () => this.#unknownSensor(),
    };
  }

  /** Each of the three in turn. */
  #tlsPort(): number {
    const { httpsPort, mqttsPort, rtspsPort } = this.#place;
    return [httpsPort, mqttsPort, rtspsPort][this.#turn++ % 3]!;
  }

  async #wrongRequests(): Promise<void> {
    const socket = await opened(this.#place.rtspPort);
    const requests = WRONG_REQUESTS.map(([, what, header, body = ""], i) => {
      const [method, track = ""] = what.split(" ");
      const line = `${method} rtsp://127.0.0.1:${this.#place.rtspPort}/wrong${track} RTSP/1.0`;
      const lines = [line, `CSeq: ${i + 1}`, ...(header === undefined ? [] : [header])];
      return `${lines.join("\r\n")}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    });
    try {
      const statuses = within(statusesFrom(socket, requests.length), "RTSP answers");
      socket.write(requests.join(""));
      const wanted = WRONG_REQUESTS.map(([status]) => status).join(" ");
      const got = (await statuses).join(" ");
      if (got !== wanted) throw new Error(`answered ${got}, not ${wanted}`);
    } finally {
      socket.destroy();
    }
  }

  async #cutAnnounce(): Promise<void> {
    const { rtspPort } = this.#place;
    const socket = await opened(rtspPort);
    const head = `ANNOUNCE rtsp://127.0.0.1:${rtspPort}/cut RTSP/1.0\r\nCSeq: 1\r\nContent-Length: `;
    const whole = `${head}${CAMERA_SDP.length}\r\n\r\n${CAMERA_SDP}`;
    socket.write(whole.slice(0, Math.floor(whole.length * Math.random())));
    await this.#loops.wait(20);
    socket.resetAndDestroy();
  }

  /** A whole picture and the half of another. What there is of them is archived under a name that nobody compares. */
  async #dyingCamera(): Promise<void> {
    const session = await PublishedCamera.open(`rtsp://127.0.0.1:${this.#place.rtspPort}/dying`);
    const stream = new PictureStream();
    const nowUs = Date.now() * 1_000;
    const whole = stream.packets(randomBytes(2_000), true, nowUs);
    const half = stream.packets(randomBytes(4_000), false, nowUs + 100_000).slice(0, 2);
    for (const rtp of [...whole, ...half]) session.client.sendRtp(0, rtp);
    await this.#loops.wait(20);
    session.cut();
  }

  /** @param status with which it is refused */
  async #announces(status: number, path: string, tls: ConnectionOptions): Promise<void> {
    const url = `rtsps://127.0.0.1:${this.#place.rtspsPort}/${path}`;
    const refusal = await PublishedCamera.open(url, tls).then(
      (session) => {
        session.cut();
        return "taken";
      },
      (error: Error) => error.message,
    );
    if (!refusal.includes(String(status))) throw new Error(`not refused by ${status}: ${refusal}`);
  }

  async #cutHandshake(): Promise<void> {
    const socket = await opened(this.#tlsPort());
    socket.write(Buffer.concat([HALF_HELLO, randomBytes(100)]));
    await this.#loops.wait(20);
    socket.resetAndDestroy();
  }

  /** By TLS 1.3 the client is done before the server has looked at its certificate. */
  async #stranger(): Promise<void> {
    const socket = await openedSecurely(this.#tlsPort(), this.#place.strangerTls);
    try {
      const closed = once(socket, "close");
      socket.resume();
      await within(closed, "the end of a stranger's connection");
    } finally {
      socket.destroy();
    }
  }

  async #unknownSensor(): Promise<void> {
    const options = { protocol: "mqtts", rejectUnauthorized: false } as IClientOptions;
    const where = { host: "127.0.0.1", port: this.#place.mqttsPort, clientId: "soak-unknown" };
    const client = await connectAsync({ ...options, ...where, protocolVersion: 4, reconnectPeriod: 0 }).catch(
      () => undefined,
    );
    if (client === undefined) return;
    await client.endAsync(true);
    throw new Error("it was let in");
  }
}

async function statusesFrom(socket: AsyncIterable<Buffer>, count: number): Promise<string[]> {
  let text = "";
  for await (const chunk of socket) {
    text += chunk.toString("latin1");
    const statuses = [...text.matchAll(/^RTSP\/1\.0 (\d{3})/gm)].map((match) => match[1]!);
    if (statuses.length >= count) return statuses;
  }
  throw new Error(`ended after ${text.slice(0, 200)}`);
}
