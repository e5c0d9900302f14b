/** agent.yaml: every key, its default and its meaning. */
import { z } from "zod";
import { address, bytes, isLoopback, listen, logLevel, name, path, streamName } from "./fields.ts";
import { linkKeys } from "./link-config.ts";
import { checkSources } from "./source-checks.ts";
import { sources } from "./source-config.ts";

/** A packet of a gateway holds a frame of 12 MiB; a publish of several is well below. */
const MAX_PUBLISH_BYTES = 8 * 1_048_576;

export const agentConfig = z
  .strictObject({
    device: name.describe("This device's name; unique among all that use the gateway"),
    dataDir: path()
      .default("/var/lib/headwater-agent")
      .describe("Where the buffers live; relative to this file"),
    gateway: z
      .strictObject({
        mqtt: address(/^mqtts?:\/\//, "an mqtt:// or mqtts:// address")
          .default("mqtt://127.0.0.1:1883")
          .describe("Where records go"),
        rtsp: address(/^rtsps?:\/\//, "an rtsp:// or rtsps:// address")
          .default("rtsp://127.0.0.1:8554")
          .describe("Where footage goes"),
        https: address(/^https:\/\//, "an https:// address")
          .optional()
          .describe("Where this device's certificate is renewed; `headwater-agent join` writes it"),
        password: z.string().optional().describe("This device's password at the gateway"),
      })
      .prefault({}),
    http: listen(8081, "Status page and /metrics"),
    sources: sources.superRefine(checkSources),
    buffer: z
      .strictObject({
        maxBytes: bytes("1GiB").describe("Disk space that waiting records may take"),
        minFreeBytes: bytes("64MiB").describe("With less free space on the disk the buffer counts as full"),
        maxAgeHours: z
          .number()
          .min(0)
          .max(87_600)
          .default(0)
          .describe("Records that waited longer are dropped and reported as a gap; 0 for no limit"),
        whenFull: z
          .enum(["pause", "reject", "drop-oldest"])
          .default("pause")
          .describe("What a full buffer does: sources wait, are refused, or the oldest records go"),
        priorities: z
          .record(streamName, z.number().int().min(-100).max(100))
          .default({})
          .describe("drop-oldest begins with the streams of the lowest number; 0 for those not named"),
        commitDelayMs: z
          .number()
          .min(0)
          .max(10_000)
          .default(100)
          .describe("How long a group commit waits for company; each one costs an SD card 12 KiB and more"),
        commitBytes: bytes("1MiB").describe("A group commit of so many waits no longer; 16 MiB at most"),
        commitRecords: z
          .number()
          .int()
          .min(1)
          .max(100_000)
          .default(1_000)
          .describe("A group commit of so many waits no longer"),
      })
      .prefault({}),
    uplink: z
      .strictObject({
        publishBytes: bytes("256KiB")
          .refine((size) => size <= MAX_PUBLISH_BYTES, "8MiB at most: a gateway takes no larger packet")
          .describe("Frames of about so many bytes travel in one publish; 8 MiB at most"),
        windowBytes: bytes("2MiB").describe("Bytes sent and not yet acknowledged, at most"),
        compression: z
          .enum(["auto", "always", "never"])
          .default("auto")
          .describe(
            "Whether publishes are compressed; auto: where it makes them smaller by a sixth at least",
          ),
        liveFirst: z
          .array(streamName)
          .max(1_000)
          .default([])
          .describe("Streams whose new records do not wait behind a backlog; the others go oldest first"),
        statusSeconds: z
          .number()
          .min(0.1)
          .max(3_600)
          .default(1)
          .describe("How often the gateway hears of the buffer"),
        ...linkKeys,
      })
      .prefault({}),
    video: z
      .strictObject({ maxBytes: bytes("8GiB").describe("Disk space that waiting footage may take") })
      .prefault({}),
    log: logLevel,
  })
  .superRefine((config, context) => {
    if (!isLoopback(config.http.host)) {
      context.addIssue({
        code: "custom",
        path: ["http", "host"],
        message: "only a loopback address: the status page has no sign-in",
      });
    }
    config.sources.forEach((source, i) => {
      if (source.type !== "mqtt" && source.type !== "http") return;
      if (source.port === 0 || source.port !== config.http.port || source.host !== config.http.host) return;
      const message = `${source.port} is the port of http, the status page, already`;
      context.addIssue({ code: "custom", path: ["sources", i, "port"], message });
    });
  });

export type AgentConfig = z.infer<typeof agentConfig>;
