/** gateway.yaml: every key, its default and its meaning. */
import { z } from "zod";
import {
  bindHost,
  bytes,
  hostName,
  isLoopback,
  listen,
  logLevel,
  name,
  path,
  port,
  streamName,
  topicFilter,
} from "./fields.ts";

/** Whether there may be an action that it matches; gateway/api/signature/access.ts says how. */
function canAllow(pattern: string): boolean {
  const [head = "", ...rest] = pattern.split("*");
  if (/^kinesis:[A-Z][A-Za-z]*$/.test(head)) return true;
  return rest.length === 0 ? head === "console" : "console".startsWith(head) || "kinesis:".startsWith(head);
}

const accessKey = z.strictObject({
  id: z
    .string()
    .regex(/^[A-Za-z0-9_]{4,128}$/, "4 to 128 letters, digits or _")
    .describe("What SDKs call the access key id"),
  secret: z
    .string()
    .min(16, "at least 16 characters")
    .describe("At least 16 characters, better 32 of chance"),
  allow: z
    .array(
      z
        .string()
        .refine(canAllow, "allows nothing; write such as kinesis:PutRecords, kinesis:Get*, console or *"),
    )
    .default(["*"])
    .describe("Actions, such as kinesis:PutRecords, kinesis:Get*, console, or *"),
});

/** What is left out is chosen when the stream is made, and left alone when it is there already. */
const stream = z
  .strictObject({
    name: streamName.describe("As agents, rules and SDKs name it"),
    shards: z
      .number()
      .int()
      .min(1)
      .max(4_096)
      .optional()
      .describe("Of a new stream; 1 when left out. A stream that is there is never resharded by this"),
    onDemand: z
      .literal(true)
      .optional()
      .describe("Instead of shards: split and merged by measured traffic; begins with 4"),
    retentionHours: z
      .number()
      .int()
      .min(24)
      .max(8_760)
      .optional()
      .describe("24 for a new stream when left out"),
    limits: z
      .enum(["none", "aws"])
      .optional()
      .describe(
        "`aws`: clients are held to AWS's rates for each shard; `none` for a new stream when left out",
      ),
    maxRecordKiB: z
      .number()
      .int()
      .min(1_024)
      .max(10_240)
      .optional()
      .describe("Largest record; 1024 for a new stream when left out"),
  })
  .refine((entry) => entry.shards === undefined || entry.onDemand === undefined, {
    path: ["shards"],
    message: "a stream has shards or onDemand, not both",
  });

const store = z.union([
  z.literal("local"),
  z.strictObject({
    jetstream: z.strictObject({
      servers: z
        .array(
          z.string().regex(/^(?:(?:nats|tls):\/\/)?[^\s/@]{1,255}$/, "nats://host:port, without a password"),
        )
        .min(1)
        .max(64)
        .describe("NATS servers with JetStream, as nats://host:port"),
      replicas: z.number().int().min(1).max(5).default(1).describe("Copies of every stream in the cluster"),
      credentialsFile: path().optional().describe("NATS credentials (.creds); relative to this file"),
    }),
  }),
]);

const rule = z.strictObject({
  topic: topicFilter.describe("MQTT topic filter of plain sensors that publish straight to the gateway"),
  stream: streamName.describe("Stream in which they are kept"),
});

const delivery = z.strictObject({
  name: name.describe("Begins the names of its files; under it is remembered what was delivered"),
  stream: streamName.describe("What is delivered"),
  bufferSeconds: z
    .number()
    .min(1)
    .max(900)
    .default(60)
    .describe("An object is cut when its oldest record is so old"),
  bufferBytes: bytes("5MiB").describe("… or when so much is waiting"),
  destination: z.discriminatedUnion("type", [
    z.strictObject({
      type: z.literal("files"),
      path: path().describe("Folder; relative to this file"),
      compression: z.enum(["gzip"]).default("gzip").describe("Of each file"),
    }),
  ]),
});

const statement = z.strictObject({
  name: name.describe("Under it open windows are remembered; SQL that means something else needs another"),
  sql: z
    .string()
    .min(1)
    .max(65_536)
    .describe("Flink SQL: CREATE TABLE for input and output, then one INSERT INTO"),
  idleSeconds: z
    .number()
    .min(1)
    .max(86_400)
    .default(30)
    .describe("A shard silent for so long no longer holds the watermark back"),
});

const tls = z
  .strictObject({
    host: bindHost
      .default("127.0.0.1")
      .describe(
        "Address to bind; beyond this machine only who has a certificate, a password or a key gets in",
      ),
    https: port.default(8_443).describe("HTTPS, HTTP/1.1 and HTTP/2; 0 takes a free one, as below"),
    mqtts: port.default(8_883).describe("MQTT over TLS"),
    rtsps: port.default(8_322).describe("RTSP over TLS"),
    names: z
      .array(hostName)
      .max(64)
      .default([])
      .describe("Names and addresses under which the gateway is reached, beside those of this machine"),
    certFile: path()
      .optional()
      .describe(
        "PEM of a certificate and its chain that every client trusts; relative to this file. Without it the gateway's own CA makes one",
      ),
    keyFile: path().optional().describe("PEM of its key; relative to this file"),
    lookSeconds: z
      .number()
      .min(0.01)
      .max(3_600)
      .default(30)
      .describe("How often it is looked whether the server's certificate was replaced, or is to be renewed"),
    deviceDays: z
      .number()
      .min(0.0001)
      .max(3_650)
      .default(90)
      .describe("Life of a device's certificate; the agent renews it after two thirds"),
  })
  .refine((entry) => (entry.certFile === undefined) === (entry.keyFile === undefined), {
    path: ["keyFile"],
    message: "certFile and keyFile go together",
  });

interface Doors extends Readonly<Record<"http" | "mqtt" | "rtsp", { host: string; port: number }>> {
  readonly tls?: z.infer<typeof tls> | undefined;
}

function doorsOf({ http, mqtt, rtsp, tls }: Doors): [path: string, host: string, port: number][] {
  return [
    ["http.port", http.host, http.port],
    ["mqtt.port", mqtt.host, mqtt.port],
    ["rtsp.port", rtsp.host, rtsp.port],
    ...(tls === undefined
      ? []
      : (["https", "mqtts", "rtsps"] as const).map((key): [string, string, number] => [
          `tls.${key}`,
          tls.host,
          tls[key],
        ])),
  ];
}

/** 0.0.0.0 takes a port on all addresses of IPv4, and :: on those of IPv6, too. */
function shareAddress(one: string, other: string): boolean {
  const hosts = [one, other];
  if (one === other || hosts.includes("::")) return true;
  return hosts.includes("0.0.0.0") && hosts.every((host) => /^\d+(\.\d+){3}$/.test(host));
}

export const gatewayConfig = z
  .strictObject({
    dataDir: path()
      .default("/var/lib/headwater-gateway")
      .describe("Where everything is kept; relative to this file"),
    http: listen(8080, "AWS protocols, console, /metrics, /healthz", {
      hostNames: z
        .array(hostName)
        .max(64)
        .default([])
        .describe("Names under which browsers may open the console, beside the address and localhost"),
    }),
    mqtt: listen(1883, "Agents and plain sensors"),
    rtsp: listen(8554, "Agents' footage, cameras that publish, and readers"),
    tls: tls.optional().describe("TLS ports, and devices that join by token; none of it without this key"),
    accessKeys: z
      .array(accessKey)
      .default([])
      .describe("Without any, one is made at the first start and kept in dataDir"),
    devices: z
      .array(
        z.strictObject({
          id: name.describe("`device` in its agent.yaml; user name of a plain sensor or a camera"),
          password: z.string().min(8, "at least 8 characters").describe("At least 8 characters"),
        }),
      )
      .default([])
      .describe("Who may send; needed when mqtt or rtsp is not loopback"),
    store: store
      .default("local")
      .describe("Where streams are kept: `local`, this machine's disk, or a NATS JetStream cluster"),
    streams: z.array(stream).default([]).describe("Made where they are missing"),
    rules: z
      .array(rule)
      .default([])
      .describe("Where publishes of plain sensors go: the first that matches decides"),
    delivery: z.array(delivery).default([]).describe("Streams as files, each record in exactly one"),
    analytics: z.array(statement).default([]).describe("Windows over a stream; docs/reference/sql.md"),
    video: z
      .strictObject({
        retentionHours: z.number().min(1).max(87_600).default(168).describe("Older footage goes"),
        maxBytes: bytes("50GiB").describe("The oldest footage goes when more is stored"),
      })
      .prefault({}),
    log: logLevel,
  })
  .superRefine((config, context) => {
    const issue = (path: (string | number)[], message: string) =>
      context.addIssue({ code: "custom", path, message });
    for (const door of ["mqtt", "rtsp"] as const) {
      if (!isLoopback(config[door].host) && config.devices.length === 0) {
        issue(
          [door, "host"],
          `${config[door].host} can be reached from other machines; list who may send under devices first`,
        );
      }
    }
    if (!isLoopback(config.http.host) && config.accessKeys.length === 0) {
      issue(["http", "host"], `${config.http.host} can be reached from other machines; set accessKeys first`);
    }
    const doors = doorsOf(config);
    doors.forEach(([path, host, port], i) => {
      const taken = doors.slice(0, i).find((other) => other[2] === port && shareAddress(other[1], host));
      if (port !== 0 && taken !== undefined)
        issue(path.split("."), `${port} is the port of ${taken[0]} already`);
    });
    for (const section of ["accessKeys", "devices"] as const) {
      const ids = new Set<string>();
      config[section].forEach(({ id }, i) => {
        if (ids.has(id)) issue([section, i, "id"], `${id} is listed twice`);
        ids.add(id);
      });
    }
    for (const section of ["streams", "delivery", "analytics"] as const) {
      const names = new Set<string>();
      config[section].forEach((entry, i) => {
        if (names.has(entry.name)) issue([section, i, "name"], `${entry.name} is listed twice`);
        names.add(entry.name);
      });
    }
  });

export type GatewayConfig = z.infer<typeof gatewayConfig>;
export type StreamConfig = GatewayConfig["streams"][number];
export type DeliveryConfig = GatewayConfig["delivery"][number];
export type StatementConfig = GatewayConfig["analytics"][number];
export type AccessKeyConfig = GatewayConfig["accessKeys"][number];
