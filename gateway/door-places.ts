/**
 * How many connections the doors take where few files may be open: what idle connections hold is missing for the
 * log's next segment. What the doors refuse they count; what the kernel refuses nobody hears of.
 *
 *   all that may be open = a quarter, or what the streams need + the doors' connections
 */
import { describeError, HeadwaterError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";
import { MAX_CONNECTIONS as MAX_HTTP } from "./api/door/front-door.ts";
import { MAX_CONNECTIONS as MAX_MQTT } from "./ingest/mqtt-ingest.ts";

/** A log has its segment open, and a second one or its folder now and then. */
const FILES_A_STREAM = 2;
/** Databases, ports, pipes, what readers and deliveries have open. */
const OTHER_FILES = 128;
/** With fewer a gateway is none. */
const LEAST_CONNECTIONS = 64;
const RAISE =
  "allow more open files: LimitNOFILE= by `systemctl edit headwater-gateway`, `ulimit -n` in a shell, --ulimit nofile= for a container";

/** The system lets the gateway open fewer files than its streams need, two for each, beside a few connections. */
export class TooFewFilesError extends HeadwaterError {
  constructor(maxFiles: number, streams: number, cause?: unknown) {
    const least = FILES_A_STREAM * streams + OTHER_FILES + LEAST_CONNECTIONS;
    super("TOO_FEW_FILES", {
      message: `${maxFiles} files may be open, and ${streams} streams need ${least}`,
      hint: RAISE,
      cause,
    });
  }
}

/** Connections that each door takes at most, and handshakes that are under way at each TLS port. */
export interface DoorPlaces {
  readonly http: number;
  readonly mqtt: number;
  readonly rtsp: number;
  readonly handshakes: number;
}

const ALL_PLACES: DoorPlaces = { http: MAX_HTTP, mqtt: MAX_MQTT, rtsp: 1_024, handshakes: 2_000 };
const TLS_PORTS = 3;

/** @throws TooFewFilesError */
export function doorPlaces(maxFiles: number, streams: number): DoorPlaces {
  if (maxFiles === Number.POSITIVE_INFINITY) return ALL_PLACES;
  const kept = Math.max(Math.ceil(maxFiles / 4), FILES_A_STREAM * streams + OTHER_FILES);
  const free = maxFiles - kept;
  if (free < LEAST_CONNECTIONS) throw new TooFewFilesError(maxFiles, streams);
  const part = (most: number, ofFree: number): number => Math.min(most, Math.floor(free * ofFree));
  const handshakes = part(ALL_PLACES.handshakes, 0.1 / TLS_PORTS);
  const rtsp = part(ALL_PLACES.rtsp, 0.1);
  const http = part(ALL_PLACES.http, 0.3);
  const mqtt = Math.min(ALL_PLACES.mqtt, free - TLS_PORTS * handshakes - rtsp - http);
  return { http, mqtt, rtsp, handshakes };
}

/** The same, told in the log where they are fewer than usual. @throws TooFewFilesError */
export function announcedPlaces(maxFiles: number, streams: number, log: Log): DoorPlaces {
  const places = doorPlaces(maxFiles, streams);
  const isLess = Object.entries(ALL_PLACES).some(([door, most]) => places[door as keyof DoorPlaces] < most);
  if (isLess)
    log.warn(
      { maxFiles, streams, ...places, hint: RAISE },
      "few files may be open: the doors take fewer connections",
    );
  return places;
}

/** @returns what says what to do, where a start failed for want of descriptors */
export function tooFewFiles(error: unknown, maxFiles: number, streams: number): TooFewFilesError | undefined {
  const isEmfile =
    (error as NodeJS.ErrnoException)?.code === "EMFILE" ||
    /EMFILE|Too many open files/.test(describeError(error));
  return isEmfile ? new TooFewFilesError(maxFiles, streams, error) : undefined;
}
