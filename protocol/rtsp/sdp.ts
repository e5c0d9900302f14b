/** Session descriptions (RFC 8866), as far as RTSP needs them (RFC 2326 appendix C). Tolerant of real cameras. */
import { HeadwaterError } from "../../runtime/errors.ts";

export const MAX_TRACKS = 16;
const MAX_LINES = 2_000;

export interface SdpMedia {
  /** `video`, `audio`, `application`, … */
  readonly kind: string;
  readonly payloadType: number;
  /** In upper case as in rtpmap: `H264`, `H265`, `MPEG4-GENERIC`, `PCMU`; "" when unknown. */
  readonly encoding: string;
  /** Ticks of the RTP clock a second. */
  readonly clockRate: number;
  readonly channels: number | undefined;
  /** Parameters of fmtp, names in lower case. */
  readonly fmtp: ReadonlyMap<string, string>;
  /** a=control as written; undefined when there is none. */
  readonly control: string | undefined;
  /** All a= lines but control, as written, without `a=`; rtpmap and fmtp are among them. */
  readonly attributes: readonly string[];
}

export interface SessionDescription {
  readonly name: string;
  /** The session-level a=control. */
  readonly control: string | undefined;
  /** All others of the session, as written, without `a=`. */
  readonly attributes: readonly string[];
  /** A track is an index into this list. */
  readonly media: readonly SdpMedia[];
}

/** The text describes no session that we can carry. */
export class MalformedSdpError extends HeadwaterError {
  constructor(reason: string) {
    super("SDP_MALFORMED", { message: `session description: ${reason}` });
  }
}

interface OpenMedia {
  readonly kind: string;
  readonly payloadType: number;
  control: string | undefined;
  readonly attributes: string[];
}

/** Unknown lines are skipped; what counts is that there are tracks. @throws MalformedSdpError */
export function parseSdp(text: string): SessionDescription {
  const lines = text.split(/\r\n|\n|\r/, MAX_LINES + 1);
  if (lines.length > MAX_LINES) throw new MalformedSdpError(`more than ${MAX_LINES} lines`);
  if (!lines[0]?.startsWith("v=0")) throw new MalformedSdpError("does not begin with v=0");
  let name = "";
  const session: { control: string | undefined; attributes: string[] } = {
    control: undefined,
    attributes: [],
  };
  const media: OpenMedia[] = [];
  for (const line of lines) {
    const value = line.slice(2).trim();
    if (line.startsWith("s=")) name = value;
    else if (line.startsWith("m=")) {
      if (media.length === MAX_TRACKS) throw new MalformedSdpError(`more than ${MAX_TRACKS} tracks`);
      media.push(parseMediaLine(value));
    } else if (line.startsWith("a=")) {
      const level = media.at(-1) ?? session;
      if (value.startsWith("control:")) level.control = value.slice("control:".length).trim();
      else level.attributes.push(value);
    }
  }
  return { name, control: session.control, attributes: session.attributes, media: media.map(finishMedia) };
}

function parseMediaLine(value: string): OpenMedia {
  const [kind, , protocol, format] = value.split(/\s+/);
  const payloadType = Number(format);
  if (!kind || !protocol || !Number.isInteger(payloadType) || payloadType < 0 || payloadType > 127) {
    throw new MalformedSdpError(`a media line without an RTP payload type`);
  }
  return { kind: kind.toLowerCase(), payloadType, control: undefined, attributes: [] };
}

/** RFC 3551 §6: payload types that need no rtpmap. */
const STATIC_TYPES: ReadonlyMap<number, readonly [string, number]> = new Map([
  [0, ["PCMU", 8_000]],
  [3, ["GSM", 8_000]],
  [8, ["PCMA", 8_000]],
  [9, ["G722", 8_000]],
  [14, ["MPA", 90_000]],
  [26, ["JPEG", 90_000]],
  [32, ["MPV", 90_000]],
  [33, ["MP2T", 90_000]],
]);

function finishMedia(open: OpenMedia): SdpMedia {
  let [encoding, clockRate] = STATIC_TYPES.get(open.payloadType) ?? [
    "",
    open.kind === "audio" ? 8_000 : 90_000,
  ];
  let channels: number | undefined;
  let fmtp = new Map<string, string>();
  for (const attribute of open.attributes) {
    const map = /^rtpmap:\s*(\d+)\s+([^/\s]+)\/(\d{1,9})(?:\/(\d{1,3}))?/i.exec(attribute);
    if (map !== null && Number(map[1]) === open.payloadType && Number(map[3]) > 0) {
      encoding = map[2]!.toUpperCase();
      clockRate = Number(map[3]);
      channels = map[4] === undefined ? undefined : Number(map[4]);
    }
    // Without the rest of the line: `.*$` behind blanks takes a time that grows with the square of a hostile line.
    const format = /^fmtp:\s*(\d+)\s/i.exec(attribute);
    if (format !== null && Number(format[1]) === open.payloadType)
      fmtp = parseFmtp(attribute.slice(format[0].length));
  }
  return { ...open, encoding, clockRate, channels, fmtp };
}

function parseFmtp(text: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of text.split(";")) {
    const equals = part.indexOf("=");
    const name = (equals === -1 ? part : part.slice(0, equals)).trim().toLowerCase();
    if (name !== "") parameters.set(name, equals === -1 ? "" : part.slice(equals + 1).trim());
  }
  return parameters;
}

/** Writes a description whose tracks are controlled as `trackID=0`, `trackID=1`, … */
export function formatSdp(description: SessionDescription): string {
  const lines = [
    "v=0",
    "o=- 0 0 IN IP4 127.0.0.1",
    `s=${description.name === "" ? "-" : description.name}`,
    "c=IN IP4 0.0.0.0",
    "t=0 0",
    "a=control:*",
    ...description.attributes.map((attribute) => `a=${attribute}`),
  ];
  description.media.forEach((media, track) => {
    lines.push(`m=${media.kind} 0 RTP/AVP ${media.payloadType}`);
    for (const attribute of media.attributes) lines.push(`a=${attribute}`);
    lines.push(`a=control:trackID=${track}`);
  });
  return `${lines.join("\r\n")}\r\n`;
}

/**
 * The address that controls a track, for SETUP (RFC 2326 appendix C.1.1).
 * @param base Content-Base, or else the address that was described or announced
 */
export function controlUrl(base: string, control: string | undefined): string {
  if (control === undefined || control === "*" || control === "") return base;
  if (/^rtsps?:\/\//i.test(control)) return control;
  return base.endsWith("/") ? base + control : `${base}/${control}`;
}

/** H.264 parameter sets of sprop-parameter-sets (RFC 6184 §8.1), without start codes; [] when absent or bad. */
export function h264ParameterSets(media: SdpMedia): Buffer[] {
  return decodeSets(media.fmtp.get("sprop-parameter-sets"));
}

/** H.265 parameter sets of sprop-vps, sprop-sps, sprop-pps (RFC 7798 §7.1). */
export function h265ParameterSets(media: SdpMedia): Buffer[] {
  return ["sprop-vps", "sprop-sps", "sprop-pps"].flatMap((name) => decodeSets(media.fmtp.get(name)));
}

function decodeSets(text: string | undefined): Buffer[] {
  if (text === undefined) return [];
  return text
    .split(",")
    .map((part) => Buffer.from(part.trim(), "base64"))
    .filter((set) => set.length > 0);
}
