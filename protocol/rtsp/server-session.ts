/**
 * The one session of a connection: with interleaved RTP it cannot outlive it.
 *
 *   init ─ANNOUNCE→ announced ─SETUP, RECORD→ recording
 *   init ─DESCRIBE→ described ─SETUP, PLAY→ playing ─PAUSE→ described          (RFC 2326 appendix A)
 */
import { randomBytes } from "node:crypto";
import type { DigestGate } from "./digest-gate.ts";
import {
  type Playback,
  type Publication,
  type PublisherSession,
  type ReaderSession,
  RtspError,
  type RtspHandler,
} from "./handler.ts";
import type { InterleavedWriter } from "./interleaved-writer.ts";
import type { HeaderFields, InterleavedFrame, RtspRequest } from "./messages.ts";
import { SparingPackets } from "./packet-blocks.ts";
import { controlUrl, parseSdp, type SessionDescription } from "./sdp.ts";
import { TrackChannels } from "./track-channels.ts";
import { formatTransport, parseClockRange, parseTransport, pathOf, withoutTrailing } from "./transport.ts";

/** What a session needs of its connection. */
export interface SessionLink {
  readonly remoteAddress: string;
  readonly writer: InterleavedWriter;
  readonly gate: DigestGate;
  /** Whether to stop reading. */
  hold(held: boolean): void;
  close(reason: string): void;
  /** Closes once what was written has left. */
  finish(reason: string): void;
}

type State = "init" | "announced" | "recording" | "described" | "playing";

export interface Answer {
  readonly headers?: HeaderFields;
  readonly body?: string;
  /** Done once the answer is written. */
  after?(): void;
}

export const METHODS =
  "OPTIONS, ANNOUNCE, DESCRIBE, SETUP, RECORD, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
const MAX_PARAMETERS = 16;
const MIN_RTP_BYTES = 12;

export class ServerSession {
  readonly id = randomBytes(8).toString("hex");
  readonly #handler: RtspHandler;
  readonly #link: SessionLink;
  readonly #channels = new TrackChannels();
  readonly #packets = new SparingPackets();
  #state: State = "init";
  #path = "";
  #user: string | undefined;
  #description: SessionDescription | undefined;
  #publication: Publication | undefined;
  #playback: Playback | undefined;
  #ended = false;

  constructor(handler: RtspHandler, link: SessionLink) {
    this.#handler = handler;
    this.#link = link;
  }

  get path(): string {
    return this.#path;
  }

  /** Its id is known to the peer. */
  get isSetUp(): boolean {
    return this.#channels.tracks > 0;
  }

  get isPlaying(): boolean {
    return this.#state === "playing";
  }

  /** Tells publication and playback, once. */
  end(reason: string): void {
    this.#ended = true;
    const publication = this.#publication;
    this.#publication = undefined;
    this.#endPlayback(reason);
    publication?.close(reason);
  }

  /** So many bytes came, of whatever it is that comes next. */
  came(bytes: number): void {
    this.#packets.came(bytes);
  }

  /** Throws what the handler throws. */
  frame(frame: InterleavedFrame): void {
    const publication = this.#publication;
    const use = this.#channels.useOf(frame.channel);
    if (publication === undefined || use === undefined || this.#state !== "recording") return;
    const { payload } = frame;
    if (use.isRtcp) publication.rtcp(use.track, payload);
    else if (payload.length >= MIN_RTP_BYTES && payload[0]! >> 6 === 2)
      publication.packet(use.track, this.#packets.take(payload));
  }

  /** What a 200 says. @throws RtspError for another status */
  answer(request: RtspRequest): Answer | Promise<Answer> {
    const { headers } = request;
    if (!headers.has("cseq")) throw new RtspError(400, "CSeq Missing");
    if (headers.has("require")) throw new RtspError(551, "Option not supported");
    const session = headers.get("session")?.split(";")[0]?.trim();
    if (session !== undefined && session !== this.id) throw new RtspError(454, "Session Not Found");
    switch (request.method) {
      case "OPTIONS":
        return { headers: { Public: METHODS } };
      case "ANNOUNCE":
        return this.#announce(request);
      case "DESCRIBE":
        return this.#describe(request);
      case "SETUP":
        return this.#setup(request);
      case "RECORD":
        return this.#record(request);
      case "PLAY":
        return this.#play();
      case "PAUSE":
        return this.#pause();
      case "TEARDOWN":
        return { after: () => this.#teardown() };
      case "GET_PARAMETER":
        return this.#getParameter(request);
      case "SET_PARAMETER":
        if (request.body.toString().trim() !== "") throw new RtspError(451, "Parameter Not Understood");
        return {};
      default:
        throw new RtspError(501, "Not Implemented");
    }
  }

  #expect(...states: State[]): void {
    if (!states.includes(this.#state)) throw new RtspError(455, "Method Not Valid in This State");
  }

  #requestPath(request: RtspRequest): string {
    const path = pathOf(request.url);
    if (path === undefined) throw new RtspError(400, "Bad Request");
    return path;
  }

  async #announce(request: RtspRequest): Promise<Answer> {
    const handler = this.#handler;
    if (handler.publish === undefined) throw new RtspError(405, "Method Not Allowed");
    this.#expect("init");
    const path = this.#requestPath(request);
    this.#user = await this.#link.gate.authorize(request, path, "ANNOUNCE");
    const type = request.headers.get("content-type") ?? "application/sdp";
    if (!/^application\/sdp\b/i.test(type)) throw new RtspError(415, "Unsupported Media Type");
    const sdp = request.body.toString();
    const description = parseSdp(sdp);
    if (description.media.length === 0) throw new RtspError(400, "Session Description Without Tracks");
    this.#path = path;
    const publication = await handler.publish(path, sdp, this.#publisher(path), description);
    if (this.#ended) {
      publication.close("the peer closed the connection");
      return {};
    }
    this.#publication = publication;
    this.#description = description;
    this.#state = "announced";
    return {};
  }

  #publisher(path: string): PublisherSession {
    return {
      ...this.#identity(path),
      pauseReading: () => this.#link.hold(true),
      resumeReading: () => this.#link.hold(false),
    };
  }

  #identity(path: string): Pick<PublisherSession, "id" | "path" | "user" | "remoteAddress" | "close"> {
    return {
      id: this.id,
      path,
      user: this.#user,
      remoteAddress: this.#link.remoteAddress,
      close: (reason) => this.#link.close(reason),
    };
  }

  async #describe(request: RtspRequest): Promise<Answer> {
    this.#expect("init", "described");
    const path = this.#requestPath(request);
    this.#user = await this.#link.gate.authorize(request, path, "DESCRIBE");
    if (this.#channels.tracks > 0 && path !== this.#path)
      throw new RtspError(455, "Method Not Valid in This State");
    const sdp = await this.#load(path);
    return {
      headers: {
        "Content-Type": "application/sdp",
        "Content-Base": `${withoutTrailing(request.url, "/?")}/`,
      },
      body: sdp,
    };
  }

  async #load(path: string): Promise<string> {
    const handler = this.#handler;
    if (handler.describe === undefined || handler.play === undefined)
      throw new RtspError(405, "Method Not Allowed");
    const sdp = await handler.describe(path, this.#user);
    if (sdp === undefined) throw new RtspError(404, "Not Found");
    this.#description = parseSdp(sdp);
    this.#path = path;
    this.#state = "described";
    return sdp;
  }

  async #setup(request: RtspRequest): Promise<Answer> {
    this.#expect("init", "announced", "described");
    if (this.#state === "init") {
      // A reader may know the tracks from elsewhere; the last part of the path is the track's then.
      const path = this.#requestPath(request).replace(/\/[^/]*$/, "");
      this.#user = await this.#link.gate.authorize(request, path, "DESCRIBE");
      await this.#load(path);
    }
    const track = this.#trackOf(this.#requestPath(request));
    const transport = parseTransport(request.headers.get("transport") ?? "");
    if (transport === undefined) throw new RtspError(461, "Unsupported Transport");
    const channels = this.#channels.assign(track, transport.channels);
    const mode = this.#state === "announced" ? "record" : "play";
    return { headers: { Transport: formatTransport(channels, mode) } };
  }

  #trackOf(path: string): number {
    const base = `rtsp://-/${this.#path.split("/").map(encodeURIComponent).join("/")}`;
    const track = this.#description!.media.findIndex(
      ({ control }) => pathOf(controlUrl(base, control)) === path,
    );
    if (track === -1) throw new RtspError(404, "No Such Track");
    return track;
  }

  #record(request: RtspRequest): Answer {
    this.#expect("announced", "recording");
    if (this.#channels.tracks === 0) throw new RtspError(455, "Method Not Valid in This State");
    if (this.#state === "recording") return {};
    // RFC 2326 §10.11: the range is the time of what is recorded; of that, only the clock's form has a meaning here.
    this.#publication!.record?.(parseClockRange(request.headers.get("range") ?? ""));
    this.#state = "recording";
    return {};
  }

  async #play(): Promise<Answer> {
    this.#expect("described", "playing");
    if (this.#channels.tracks === 0) throw new RtspError(455, "Method Not Valid in This State");
    if (this.#state === "playing") return { headers: { Range: "npt=0.000-" } };
    const playback = await this.#handler.play!(this.#path, this.#reader());
    if (this.#ended) {
      playback.close("the peer closed the connection");
      return {};
    }
    this.#playback = playback;
    this.#state = "playing";
    return { headers: { Range: "npt=0.000-" }, after: () => playback.start() };
  }

  #reader(): ReaderSession {
    // A reader of one small track must not hold all the others' packets while it takes its own.
    const packets = new SparingPackets();
    const send = (channel: number | undefined, bytes: Buffer): boolean => {
      if (channel === undefined || this.#ended) {
        packets.came(bytes.length);
        return true;
      }
      if (this.#link.writer.full) return false;
      packets.came(bytes.length);
      this.#link.writer.write(channel, packets.take(bytes));
      return true;
    };
    return {
      ...this.#identity(this.#path),
      description: this.#description!,
      sendRtp: (track, rtp) => send(this.#channels.pairOf(track)?.rtp, rtp),
      sendRtcp: (track, bytes) => send(this.#channels.pairOf(track)?.rtcp, bytes),
      backlogBytes: () => this.#link.writer.backlogBytes,
      whenReady: (ready) => this.#link.writer.whenDrained(ready),
    };
  }

  #pause(): Answer {
    this.#expect("playing");
    this.#endPlayback("paused");
    this.#state = "described";
    return {};
  }

  #endPlayback(reason: string): void {
    const playback = this.#playback;
    this.#playback = undefined;
    playback?.close(reason);
  }

  /** The answer has been written and leaves first; whoever does not close after it is closed. */
  #teardown(): void {
    this.#link.finish("torn down");
    this.end("torn down");
  }

  async #getParameter(request: RtspRequest): Promise<Answer> {
    const names = request.body
      .toString()
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== "");
    if (names.length > MAX_PARAMETERS) throw new RtspError(400, "Too Many Parameters");
    let body = "";
    for (const name of names) {
      const value = await this.#publication?.getParameter?.(name);
      if (value === undefined) throw new RtspError(451, "Parameter Not Understood");
      body += `${name}: ${value}\r\n`;
    }
    return body === "" ? {} : { headers: { "Content-Type": "text/parameters" }, body };
  }
}
