/** What a store refuses, and why. The face `streams.ts` gives them to everybody outside. */
import { HeadwaterError } from "../../runtime/errors.ts";

export class StreamNotFoundError extends HeadwaterError {
  constructor(name: string) {
    super("STREAM_NOT_FOUND", {
      message: `there is no stream ${name}`,
      hint: "add it to streams: in gateway.yaml, or CreateStream",
    });
  }
}

export class StreamExistsError extends HeadwaterError {
  constructor(name: string) {
    super("STREAM_EXISTS", { message: `stream ${name} exists already` });
  }
}

/** The store takes no more streams, whoever asks. */
export class StreamLimitError extends HeadwaterError {
  constructor(message: string, hint: string, cause: unknown) {
    super("STREAM_LIMIT", { message, hint, cause });
  }
}

export class ShardNotFoundError extends HeadwaterError {
  constructor(stream: string, shardId: string) {
    super("SHARD_NOT_FOUND", { message: `stream ${stream} has no shard ${shardId}` });
  }
}

/** What cannot be split or merged so: a closed shard, a hash outside, ranges that do not touch. Nothing was changed. */
export class BadReshardError extends HeadwaterError {
  constructor(stream: string, reason: string) {
    super("BAD_RESHARD", { message: `stream ${stream}: ${reason}` });
  }
}

export class ReaderExistsError extends HeadwaterError {
  constructor(stream: string, name: string) {
    super("READER_EXISTS", { message: `stream ${stream} has a registered consumer ${name} already` });
  }
}

export class ReaderNotFoundError extends HeadwaterError {
  constructor(stream: string, name: string) {
    super("READER_NOT_FOUND", { message: `stream ${stream} has no registered consumer ${name}` });
  }
}

/** Nothing was stored. Room returns with retention or a larger disk, so callers may retry. */
export class LogFullError extends HeadwaterError {
  constructor(stream: string, cause?: unknown, hint = "free disk space, or lower retentionHours") {
    super("LOG_FULL", {
      retryable: true,
      message: `stream ${stream} cannot be written: no space left`,
      hint,
      cause,
    });
  }
}

export class LeaseHeldError extends HeadwaterError {
  constructor(stream: string, consumer: string) {
    super("LEASE_HELD", { retryable: true, message: `consumer ${consumer} of ${stream} is open already` });
  }
}

export class LeaseLostError extends HeadwaterError {
  constructor(stream: string, consumer: string) {
    super("LEASE_LOST", { message: `consumer ${consumer} of ${stream} no longer holds its leases` });
  }
}

/** What the last holder of a lease left cannot be read back whole. */
export class HandoverDamagedError extends HeadwaterError {
  constructor(stream: string, consumer: string, reason: string) {
    super("HANDOVER_DAMAGED", {
      message: `what was kept with consumer ${consumer} of ${stream} is damaged: ${reason}`,
    });
  }
}

/** A checkpoint would go backwards, or names what is not there. Nothing was stored. */
export class BadCheckpointError extends HeadwaterError {
  constructor(stream: string, consumer: string, reason: string) {
    super("BAD_CHECKPOINT", { message: `consumer ${consumer} of ${stream}: ${reason}` });
  }
}

/** An entry breaks a limit of the log itself: an empty or too long key, a hash out of range, too many bytes. */
export class BadEntryError extends HeadwaterError {
  constructor(reason: string) {
    super("BAD_ENTRY", { message: `record: ${reason}` });
  }
}

/** More waits for the disk than may. Nothing was stored; it clears as the disk catches up. */
export class LogBusyError extends HeadwaterError {
  /**
   * @param allWaitingBytes of all streams of the store, where they are counted together
   * @param silent that the disk does not answer, where it does not: no pace helps then
   */
  constructor(stream: string, waitingBytes: number, allWaitingBytes?: number, silent?: string) {
    const all = allWaitingBytes === undefined ? "" : `, of ${allWaitingBytes} of all streams`;
    super("LOG_BUSY", {
      retryable: true,
      message: `stream ${stream} has ${waitingBytes} bytes waiting for the disk${all}`,
      hint:
        silent === undefined
          ? "send slower, or use a faster disk"
          : `${silent}; check it and the kernel's log`,
    });
  }
}

/** The disk refused a write or a sync. Nothing of what waited was stored; the log repairs itself and accepts again. */
export class LogWriteError extends HeadwaterError {
  constructor(stream: string, cause: unknown, hint = "check the disk and the kernel's log") {
    super("LOG_WRITE_FAILED", {
      retryable: true,
      message: `stream ${stream} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint,
      cause,
    });
  }
}

/** Another gateway has stored so many of the client since that nobody can tell whether this one is among them. Sent again, it is taken. */
export class PublishTooLateError extends HeadwaterError {
  constructor(stream: string) {
    super("PUBLISH_TOO_LATE", {
      retryable: true,
      message: `stream ${stream}: a publish comes so late that it may be stored already, by another gateway that its client has gone to`,
      hint: "see why this gateway was cut off from the NATS cluster",
    });
  }
}

/** The streams were closed while this waited, or before it came. */
export class StreamsClosedError extends HeadwaterError {
  constructor() {
    super("STREAMS_CLOSED", { message: "the stream log is closed" });
  }
}
