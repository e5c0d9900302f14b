/** agent.yaml, `uplink`: what the link may carry, and when. */
import { z } from "zod";
import { bytes } from "./fields.ts";

const DAY_NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;
const EVERY_DAY = [0, 1, 2, 3, 4, 5, 6] as const;
/** Less would not carry the status. */
const MIN_BYTES_PER_SECOND = 512;

const cap = z.union([
  z.literal("none").transform(() => Number.POSITIVE_INFINITY),
  bytes("64KiB")
    .unwrap()
    .refine(
      (rate) => rate >= MIN_BYTES_PER_SECOND,
      `at least ${MIN_BYTES_PER_SECOND} bytes a second; to send nothing write mode: paused`,
    ),
]);

const mode = z.enum(["full", "metered", "paused"]);

/** `mon-fri`, `sat,sun` or `fri-mon, wed`. */
const days = z.string().transform((text, context): readonly number[] => {
  const chosen = new Set<number>();
  for (const part of text.toLowerCase().split(",")) {
    const [from, to = from, ...more] = part.trim().split("-").map(dayNumber);
    if (from === undefined || to === undefined || from < 0 || to < 0 || more.length > 0) {
      context.addIssue({
        code: "custom",
        message: `${JSON.stringify(text.slice(0, 80))} names no days; write mon-fri, or sat,sun`,
      });
      return z.NEVER;
    }
    for (let day = from; ; day = (day + 1) % 7) {
      chosen.add(day);
      if (day === to) break;
    }
  }
  return [...chosen].sort();
});

function dayNumber(name: string): number {
  return DAY_NAMES.indexOf(name.trim() as (typeof DAY_NAMES)[number]);
}

/** `22:00`; 24:00 only where a window ends. */
function timeOfDay(lastMinute: number) {
  return z.string().transform((text, context) => {
    const match = /^(\d{1,2}):([0-5]\d)$/.exec(text.trim());
    const minute = match === null ? -1 : Number(match[1]) * 60 + Number(match[2]);
    if (minute >= 0 && minute <= lastMinute) return minute;
    context.addIssue({
      code: "custom",
      message: `${JSON.stringify(text.slice(0, 80))} is no time of day; write 22:00`,
    });
    return z.NEVER;
  });
}

const entry = z
  .strictObject({
    days: days
      .optional()
      .describe("Days on which the window begins, such as mon-fri or sat,sun; every day when left out"),
    from: timeOfDay(1_439).describe("Local time, such as 22:00"),
    to: timeOfDay(1_440).describe("Local time; not after `from`: on the next day"),
    mode: mode.optional().describe("Instead of `uplink.mode`"),
    maxBytesPerSecond: cap.optional().describe("Instead of `uplink.maxBytesPerSecond`"),
  })
  .transform(({ days: on = EVERY_DAY, from, to, ...rest }) => ({
    days: on,
    fromMinute: from,
    toMinute: to,
    ...rest,
  }));

const metered = z
  .strictObject({
    minPriority: z
      .number()
      .int()
      .min(-100)
      .max(100)
      .default(0)
      .describe("Streams with a lower number in `buffer.priorities` wait for another mode"),
    batchSeconds: z
      .number()
      .min(0)
      .max(3_600)
      .default(30)
      .describe("Records gather for so long before they are sent together"),
    statusSeconds: z
      .number()
      .min(1)
      .max(86_400)
      .default(60)
      .describe("How often the gateway hears of the buffer"),
    footage: z.boolean().default(false).describe("true: footage is sent all the same"),
  })
  .prefault({});

const paused = z
  .strictObject({
    minPriority: z
      .number()
      .int()
      .min(-100)
      .max(100)
      .optional()
      .describe("Streams with at least this number in `buffer.priorities` are sent all the same; none"),
  })
  .prefault({});

/** Keys of `uplink`. */
export const linkKeys = {
  mode: mode
    .default("full")
    .describe(
      "full; metered: each byte costs; paused: nothing but the status is sent. The schedule comes first",
    ),
  maxBytesPerSecond: cap
    .prefault("none")
    .describe("The most that records and footage together may take of the link, or none"),
  schedule: z.array(entry).max(100).default([]).describe("Windows of the week; the first that holds decides"),
  metered: metered.describe("What metered mode leaves out and puts off"),
  paused: paused.describe("What is sent all the same while paused"),
};

export type LinkConfig = z.infer<z.ZodObject<typeof linkKeys>>;
