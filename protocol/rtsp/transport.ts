/** The Transport, Session and Range headers, and addresses (RFC 2326 §3.2, §12.29, §12.37, §12.39). */

/** The two channels of a track on the connection. */
export interface ChannelPair {
  readonly rtp: number;
  readonly rtcp: number;
}

/**
 * The first alternative that is RTP over this TCP connection; undefined when there is none, as for UDP.
 * `channels` is undefined when the peer leaves the choice to us.
 */
export function parseTransport(header: string): { readonly channels: ChannelPair | undefined } | undefined {
  for (const alternative of header.split(",")) {
    const [protocol, ...parameters] = alternative.split(";").map((part) => part.trim());
    if (protocol?.toUpperCase() !== "RTP/AVP/TCP") continue;
    const interleaved = parameters.find((parameter) => parameter.toLowerCase().startsWith("interleaved="));
    const match = /^\w+=(\d{1,3})(?:-(\d{1,3}))?$/.exec(interleaved ?? "");
    if (match === null) return { channels: undefined };
    const rtp = Number(match[1]);
    const rtcp = match[2] === undefined ? rtp + 1 : Number(match[2]);
    return { channels: rtp <= 255 && rtcp <= 255 && rtp !== rtcp ? { rtp, rtcp } : undefined };
  }
  return undefined;
}

export function formatTransport(channels: ChannelPair, mode: "play" | "record"): string {
  const suffix = mode === "record" ? ";mode=record" : "";
  return `RTP/AVP/TCP;unicast;interleaved=${channels.rtp}-${channels.rtcp}${suffix}`;
}

/** `12345678;timeout=60` */
export function parseSession(header: string): { readonly id: string; readonly timeoutSeconds: number } {
  const [id, ...parameters] = header.split(";").map((part) => part.trim());
  const timeout = parameters
    .map((part) => /^timeout=(\d{1,6})$/i.exec(part)?.[1])
    .find((text) => text !== undefined);
  // RFC 2326 §12.37: 60 seconds unless told.
  return { id: id ?? "", timeoutSeconds: Math.max(timeout === undefined ? 60 : Number(timeout), 1) };
}

/**
 * RFC 2326 §3.7: `clock=20261121T094433.123456Z-`. Undefined for ranges of other kinds, for nonsense, and for what
 * no camera was there to see: before 1970, or after the year 2255, where microseconds are no longer exact.
 */
export function parseClockRange(header: string): number | undefined {
  const match = /^\s*clock\s*=\s*(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9}))?Z\s*-/i.exec(header);
  if (match === null) return undefined;
  const [, year, month, day, hour, minute, second, fraction] = match;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}Z`;
  const utcUs = Date.parse(iso) * 1_000 + Number((fraction ?? "").padEnd(6, "0").slice(0, 6));
  return utcUs >= 0 && utcUs <= Number.MAX_SAFE_INTEGER ? utcUs : undefined;
}

export function formatClockRange(utcUs: number): string {
  const seconds = Math.floor(utcUs / 1_000_000);
  const whole = new Date(seconds * 1_000).toISOString().slice(0, 19).replace(/[-:]/g, "");
  return `clock=${whole}.${String(utcUs - seconds * 1_000_000).padStart(6, "0")}Z-`;
}

const MAX_PATH_CHARACTERS = 512;

/**
 * The path of an rtsp address without slashes at its ends, decoded, query left out; "" for `*` and for none.
 * Undefined for what no camera's path looks like: control characters, `..`, overlong.
 */
export function pathOf(url: string): string | undefined {
  const match = /^(?:rtsps?:\/\/[^/?#]*)?(\/[^?#]*)?/i.exec(url);
  if (url === "*" || match === null) return "";
  if (match[0] === "" && url !== "") return undefined;
  let path: string;
  try {
    path = decodeURIComponent(match[1] ?? "");
  } catch {
    return undefined;
  }
  path = withoutTrailing(path.replace(/^\/+/, ""), "/");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  if (path.length > MAX_PATH_CHARACTERS || /[\u0000-\u001f\u007f\\]/.test(path)) return undefined;
  if (path.split("/").some((segment) => segment === "." || segment === "..")) return undefined;
  return path;
}

/** By hand: a pattern for it takes a time that grows with the square of a row of slashes that does not end the text. */
export function withoutTrailing(text: string, characters: string): string {
  let end = text.length;
  while (end > 0 && characters.includes(text[end - 1]!)) end--;
  return text.slice(0, end);
}
