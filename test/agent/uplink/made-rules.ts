/** Rules of the link as a config gives them. */
import type { TestContext } from "node:test";
import { z } from "zod";
import { LinkRules } from "../../../agent/uplink/link-rules.ts";
import { linkKeys } from "../../../config/link-config.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import { silentLog } from "../../../runtime/log.ts";
import { Metrics } from "../../../runtime/metrics.ts";

const config = z.strictObject(linkKeys);
export type LinkInput = z.input<typeof config>;

/** Running until the test ends. */
export function linkRules(
  t: TestContext,
  input: LinkInput,
  clock: Clock = systemClock,
  more: { readonly timeKnown?: () => boolean; readonly priorities?: Record<string, number> } = {},
): LinkRules {
  const rules = new LinkRules({
    config: config.parse(input),
    priorities: { alarms: 10, debug: -1 },
    statusSeconds: 1,
    clock,
    log: silentLog,
    metrics: new Metrics(),
    ...more,
  });
  t.after(() => rules.close());
  void rules.start();
  return rules;
}
