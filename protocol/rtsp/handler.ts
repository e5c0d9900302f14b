/** What an RtspServer asks of the program that it serves, and the sessions that it hands over. */
import { HeadwaterError } from "../../runtime/errors.ts";
import type { SessionDescription } from "./sdp.ts";

/**
 * The password of a user who may use `path`; undefined refuses. `method` is ANNOUNCE for a publisher and
 * DESCRIBE for a reader.
 */
export type Authenticator = (
  user: string,
  path: string,
  method: string,
) => string | undefined | Promise<string | undefined>;

/** A peer whose connection, such as TLS with a certificate, has proved who it is. */
export interface ProvenPeer {
  readonly user: string;
  /** Whether it may publish at, or read, `path`. */
  mayUse(path: string): boolean;
}

/** One peer's session. `path` has no leading or trailing slash: `yard`, `pi-1/yard`. */
export interface RtspSession {
  readonly id: string;
  readonly path: string;
  /** Who authenticated; undefined without an authenticator. */
  readonly user: string | undefined;
  readonly remoteAddress: string;
  /** Ends the connection. Safe to call twice. */
  close(reason: string): void;
}

export interface PublisherSession extends RtspSession {
  /** Stops reading from the publisher, so that TCP slows it down. What was read already (64 KiB or so) still comes. */
  pauseReading(): void;
  resumeReading(): void;
}

export interface ReaderSession extends RtspSession {
  readonly description: SessionDescription;
  /**
   * Sends to a track that the reader set up; others are ignored.
   * @returns false when the reader's backlog is full and the packet was dropped.
   */
  sendRtp(track: number, rtp: Buffer): boolean;
  sendRtcp(track: number, bytes: Buffer): boolean;
  /** Bytes accepted but not yet taken by the network. */
  backlogBytes(): number;
  /** Calls `ready` once, when a backlog that was full has been taken by the network. */
  whenReady(ready: () => void): void;
}

/** What a publisher sends goes here, in order. Do not write to it. */
export interface Publication {
  /** RECORD came; packets follow. @param clockUs of `Range: clock=`, the producer's time in µs; undefined: from now on. */
  record?(clockUs: number | undefined): void;
  /** An RTP packet of version 2, at least as long as its fixed header. Those that are kept hold little more than themselves. */
  packet(track: number, rtp: Buffer): void;
  /** A view of a whole chunk: copy what is to be kept. */
  rtcp(track: number, bytes: Buffer): void;
  /** The value of one GET_PARAMETER name; undefined when there is no such parameter (451). */
  getParameter?(name: string): string | undefined | Promise<string | undefined>;
  /** TEARDOWN, a broken connection or the server's close. Called once. */
  close(reason: string): void;
}

export interface Playback {
  /** The answer to PLAY is sent; packets may follow. */
  start(): void;
  /** PAUSE, TEARDOWN, a broken connection or the server's close. Called once. */
  close(reason: string): void;
}

/** Throw an RtspError to answer with its status; any other error is answered 500 and logged. */
export interface RtspHandler {
  /** ANNOUNCE. Absent: nobody may publish (405). `sdp` is the text as it came. */
  publish?(
    path: string,
    sdp: string,
    session: PublisherSession,
    description: SessionDescription,
  ): Publication | Promise<Publication>;
  /**
   * DESCRIBE: the SDP text of `path`; undefined answers 404. Absent: nobody may read (405).
   * @param user who authenticated; undefined without an authenticator
   */
  describe?(path: string, user: string | undefined): string | undefined | Promise<string | undefined>;
  /** PLAY. */
  play?(path: string, session: ReaderSession): Playback | Promise<Playback>;
}

/** An answer other than 200. RFC 2326 §7.1.1 lists the statuses. */
export class RtspError extends HeadwaterError {
  readonly status: number;
  readonly reason: string;

  constructor(status: number, reason: string) {
    super("RTSP_STATUS", { message: `${status} ${reason}` });
    this.status = status;
    this.reason = reason;
  }
}
