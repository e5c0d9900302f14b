/** Kinds of value that several configs use. */
import { BlockList, isIP } from "node:net";
import { z } from "zod";

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

/** `512MiB`, `8 GiB` or a number of bytes: a whole one, of at least 1. */
export function bytes(fallback: string) {
  const error = "is no size; write bytes or a number with B, KiB, MiB, GiB or TiB";
  return z
    .union([z.number({ error }), z.string({ error })])
    .transform((value, context) => {
      const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?$/.exec(String(value).trim());
      const amount = match && Number(match[1]) * (UNITS[match[2] ?? "B"] ?? 1);
      const rounded = amount === null ? Number.NaN : Math.round(amount);
      if (rounded >= 1 && Number.isSafeInteger(rounded)) return rounded;
      const fault = rounded === 0 ? "less than a byte" : "no size";
      context.addIssue({
        code: "custom",
        message: `${JSON.stringify(value)} is ${fault}; write bytes or a number with B, KiB, MiB, GiB or TiB`,
      });
      return z.NEVER;
    })
    .prefault(fallback);
}

export const logLevel = z
  .enum(["debug", "info", "warn", "error"])
  .default("info")
  .describe("The least that is written to the log, on standard output");

/**
 * A file or a folder. What a shell would put for `~` or `$HOME` is put by nobody here: a folder of that name
 * would be made, and filled. As another user, as under systemd, it would be another one, too.
 */
export function path() {
  return z
    .string()
    .min(1)
    .refine((text) => !/^(~|\$[A-Za-z_])/.test(text), {
      message:
        "~ and $NAME are the shell's and mean nothing here; write the whole path, or ${HOME}/… (./~… where that is its name)",
      abort: true,
    })
    .refine((text) => !text.includes("\0"), "must not hold a zero byte");
}

export const port = z.number().int().min(0).max(65_535);

export const name = z
  .string()
  .regex(/^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$/, "1 to 64 letters, digits, _, - or ., and not . or .. alone");
export const streamName = z.string().regex(/^[A-Za-z0-9_.-]{1,128}$/, "1 to 128 letters, digits, _, - or .");

/** MQTT 3.1.1 §4.7.1. */
export const topicFilter = z
  .string()
  .min(1)
  .max(1_024)
  .regex(
    /^(?:#|(?:\+|[^+#/]*)(?:\/(?:\+|[^+#/]*))*(?:\/#)?)$/,
    "an MQTT topic filter: + stands for one whole level, and # for all that follow, at the end only",
  );

/** `scheme://host`, perhaps with a port and a path; what could not be dialled is found here and not later. */
export function address(schemes: RegExp, what: string) {
  return z
    .string()
    .regex(schemes, { message: `write ${what}`, abort: true })
    .refine((text) => URL.canParse(text) && /^[^\s%]+$/.test(new URL(text).hostname), {
      message: `write ${what} of a host, with a port below 65536 if any`,
    });
}

/** Where a port is opened. */
export const bindHost = z
  .string()
  .refine((text) => !/[[\]]/.test(text), {
    message: "an address of IPv6 stands without brackets here, such as ::1; the port is a key of its own",
    abort: true,
  })
  .refine((text) => !/[/\s]|^[^:]*:\d*$/.test(text), {
    message: "an address or a name alone, such as 0.0.0.0; the port is a key of its own",
    abort: true,
  });

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** Addresses that only this machine can reach, however they are written; and localhost, as other names may mean others. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return host === "localhost";
  // Of an interface that is named behind a % nothing is known.
  return !host.includes("%") && loopback.check(host, family === 6 ? "ipv6" : "ipv4");
}

/** As it stands in a Host header, without the port. */
export const hostName = z
  .string()
  .regex(
    /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*$/,
    "a name such as gateway.local, or an address; without http:// and without a port",
  )
  .transform((text) => text.toLowerCase());

/** @param more keys of this door alone */
export function listen<More extends z.ZodRawShape = Record<never, never>>(
  defaultPort: number,
  what: string,
  more?: More,
) {
  return z
    .strictObject({
      host: bindHost.default("127.0.0.1").describe("Address to bind; 127.0.0.1 is this machine alone"),
      port: port.default(defaultPort).describe("Port; 0 takes a free one and logs it"),
      ...((more ?? {}) as More),
    })
    .prefault({} as never)
    .describe(what);
}
