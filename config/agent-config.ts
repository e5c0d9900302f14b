/** agent.yaml: every key, its default and its meaning. */
import { z } from "zod";
import { bytes, isLoopback, listen, name, port, streamName } from "./fields.ts";

const serialSource = z.strictObject({
  type: z.literal("serial"),
  name,
  path: z
    .string()
    .min(1)
    .describe("Device file; prefer /dev/serial/by-id/…, which survives replugging; relative to this file"),
  baudRate: z.number().int().min(50).max(4_000_000).default(115_200),
  format: z.enum(["json-lines"]).default("json-lines"),
  stream: streamName.default("sensors"),
});

const mqttSource = z.strictObject({
  type: z.literal("mqtt"),
  name,
  host: z
    .string()
    .default("127.0.0.1")
    .describe("Address of the agent's own broker, to which sensors publish"),
  port: port.default(1884),
  stream: streamName.default("sensors"),
  topics: z
    .array(z.string().min(1).max(1024))
    .min(1)
    .default(["#"])
    .describe("Topic filters that are stored"),
  users: z
    .array(z.strictObject({ username: z.string().min(1), password: z.string().min(8) }))
    .default([])
    .describe("Who may publish; needed when host is not loopback"),
});

const cameraSource = z.strictObject({
  type: z.literal("camera"),
  name,
  url: z
    .string()
    .regex(/^rtsps?:\/\//, "an rtsp:// address")
    .describe("The camera's RTSP address"),
  username: z.string().optional(),
  password: z.string().optional().describe("Kept out of the address, so that it is never printed"),
  stallSeconds: z.number().min(1).max(300).default(8).describe("Reconnect when no picture came for so long"),
});

export const agentConfig = z
  .strictObject({
    device: name.describe("This device's name; unique among all that use the gateway"),
    dataDir: z
      .string()
      .default("/var/lib/headwater-agent")
      .describe("Where the buffers live; relative to this file"),
    gateway: z
      .strictObject({
        mqtt: z
          .string()
          .regex(/^mqtts?:\/\//, "an mqtt:// or mqtts:// address")
          .default("mqtt://127.0.0.1:1883"),
        rtsp: z
          .string()
          .refine(
            (url) => !/^rtsps:/i.test(url),
            "footage cannot be sent over TLS yet; write rtsp://, and lay a tunnel (WireGuard, ssh -L) where others can listen",
          )
          .regex(/^rtsps?:\/\//, "an rtsp:// address")
          .default("rtsp://127.0.0.1:8554"),
        password: z.string().optional().describe("This device's password at the gateway"),
      })
      .prefault({}),
    http: listen(8081, "Status page and /metrics"),
    sources: z.array(z.discriminatedUnion("type", [serialSource, mqttSource, cameraSource])).default([]),
    buffer: z
      .strictObject({
        maxBytes: bytes("1GiB").describe("Disk space that waiting records may take"),
        whenFull: z.enum(["pause", "reject", "drop-oldest"]).default("pause"),
        commitDelayMs: z
          .number()
          .min(0)
          .max(10_000)
          .default(20)
          .describe("How long a group commit waits for company"),
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
        publishBytes: bytes("256KiB").describe("Frames of about so many bytes travel in one publish"),
        windowBytes: bytes("2MiB").describe("Bytes sent and not yet acknowledged, at most"),
        statusSeconds: z
          .number()
          .min(0.1)
          .max(3_600)
          .default(1)
          .describe("How often the gateway hears of the buffer"),
      })
      .prefault({}),
    video: z
      .strictObject({ maxBytes: bytes("8GiB").describe("Disk space that waiting footage may take") })
      .prefault({}),
    log: z.enum(["debug", "info", "warn", "error"]).default("info"),
  })
  .superRefine((config, context) => {
    const seen = new Set<string>();
    config.sources.forEach((source, i) => {
      if (seen.has(source.name)) {
        context.addIssue({
          code: "custom",
          path: ["sources", i, "name"],
          message: `${source.name} is taken; every source needs a name of its own`,
        });
      }
      seen.add(source.name);
      if (source.type === "camera" && source.name.startsWith(".")) {
        context.addIssue({
          code: "custom",
          path: ["sources", i, "name"],
          message: "a camera's name becomes a folder at the gateway and must not begin with a dot",
        });
      }
      if (source.type === "mqtt" && !isLoopback(source.host) && source.users.length === 0) {
        context.addIssue({
          code: "custom",
          path: ["sources", i, "users"],
          message: `needed, as ${source.host} can be reached from other machines`,
        });
      }
    });
    if (!isLoopback(config.http.host)) {
      context.addIssue({
        code: "custom",
        path: ["http", "host"],
        message: "only a loopback address: the status page has no sign-in",
      });
    }
  });

export type AgentConfig = z.infer<typeof agentConfig>;
export type SourceConfig = AgentConfig["sources"][number];
export type SerialSourceConfig = Extract<SourceConfig, { type: "serial" }>;
export type MqttSourceConfig = Extract<SourceConfig, { type: "mqtt" }>;
export type CameraSourceConfig = Extract<SourceConfig, { type: "camera" }>;
