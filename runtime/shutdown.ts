/** How a program ends: on SIGINT, SIGTERM or SIGHUP (its terminal was closed), or when the process that started it as a child ends. */
import { pause } from "./backoff.ts";
import { describeError } from "./errors.ts";
import type { Log } from "./log.ts";

const GRACE_MS = 10_000;

/**
 * Calls `close` once and exits: 0 when it drained, 1 when it failed or took longer than 10 s.
 * A parent that forked us and died shows as a closed IPC channel.
 */
export function closeOnExit(close: () => Promise<void>, log: Log): void {
  let closing = false;
  const end = (reason: string): void => {
    if (closing) return;
    closing = true;
    log.info({ reason }, "closing");
    const late = pause(GRACE_MS).then(() => {
      throw new Error(`not closed within ${GRACE_MS} ms`);
    });
    Promise.race([close(), late]).then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ error: describeError(error) }, "closed badly");
        process.exit(1);
      },
    );
  };
  process.on("SIGINT", () => end("SIGINT"));
  process.on("SIGTERM", () => end("SIGTERM"));
  process.on("SIGHUP", () => end("SIGHUP"));
  process.on("disconnect", () => end("the parent process ended"));
}
