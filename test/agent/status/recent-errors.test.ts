import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { explained } from "../../../agent/status/explained.ts";
import { RecentErrors } from "../../../agent/status/recent-errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import { silentLog } from "../../../runtime/log.ts";

class HandClock implements Clock {
  ms = 0;
  nowUs = (): number => 0;
  monotonicMs = (): number => this.ms;
}

test("an error is kept with its code, its hint, its part, when and how often", () => {
  const clock = new HandClock();
  const errors = new RecentErrors(clock);
  const log = errors.watch(silentLog).child({ source: "board" });
  log.info({ error: "not worth keeping" }, "fine");
  const failure = new HeadwaterError("PORT_GONE", {
    message: "tty 7 (usb) is gone",
    hint: "plug it in (again)",
  });
  log.warn({ error: describeError(failure) }, "source failed");
  clock.ms = 5_000;
  log.warn({ error: describeError(failure).replace("7", "8") }, "source failed");
  clock.ms = 6_000;
  errors
    .watch(silentLog)
    .error({ part: "uplink", reason: "connect to mqtt://me:secret@host failed" }, "no link");
  assert.deepEqual(errors.list(), [
    {
      level: "error",
      part: "uplink",
      message: "no link: connect to mqtt://host failed",
      agoMs: 0,
      firstAgoMs: 0,
      times: 1,
    },
    {
      level: "warn",
      part: "board",
      code: "PORT_GONE",
      message: "tty 8 (usb) is gone",
      hint: "plug it in (again)",
      agoMs: 1_000,
      firstAgoMs: 6_000,
      times: 2,
    },
  ]);
});

test("errors of ever new kinds take no more room than the last twenty", () => {
  const errors = new RecentErrors(new HandClock());
  const log = errors.watch(silentLog);
  for (let kind = 0; kind < 26 * 26; kind++) {
    const name = String.fromCharCode(97 + (kind % 26), 97 + Math.floor(kind / 26));
    log.warn({ error: name.repeat(10_000) }, "failed");
  }
  const list = errors.list();
  assert.equal(list.length, 20);
  assert.ok(list[0]!.message.startsWith("failed: zz"));
  assert.ok(list.every(({ message }) => message.length <= 300));
});

test("whatever an error says, it is told apart or shown whole, without control characters", () => {
  const text = fc.string({ unit: "binary", maxLength: 80 });
  fc.assert(
    fc.property(text, fc.option(text, { nil: undefined }), (message, hint) => {
      const error = new HeadwaterError("SOME_CODE", { message, ...(hint !== undefined && { hint }) });
      const parts = explained(describeError(error));
      assert.equal(parts.code, "SOME_CODE");
      // biome-ignore lint/suspicious/noControlCharactersInRegex: what must not be there
      assert.doesNotMatch(JSON.stringify(Object.values(parts).join("")), /[\x00-\x1f\x7f-\x9f\u2028-\u202e]/);
    }),
  );
});
