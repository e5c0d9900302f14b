/** The `sources` part of agent.yaml: one schema a kind of source, and what all of them share. */
import { z } from "zod";
import { address, bindHost, name, path, port, streamName, topicFilter } from "./fields.ts";

const seconds = z.number().min(0.05).max(86_400);
const pattern = z
  .string()
  .min(1)
  .max(500)
  .refine((text) => {
    try {
      new RegExp(text, "u");
      return true;
    } catch {
      return false;
    }
  }, "a regular expression of JavaScript");

/** `0.5`, or `2%` of the value stored last. */
const band = z.union([
  z.number().min(0),
  z.string().regex(/^\d+(\.\d+)?%$/, "a number, or a percentage such as 2%"),
]);

const fieldMapping = z.union([
  z.string().min(1).max(200),
  z.strictObject({
    from: z
      .string()
      .min(1)
      .max(200)
      .describe("The field that is read; a.b reads b inside a. The field of the same name unless given")
      .optional(),
    scale: z.number().default(1),
    offset: z.number().default(0),
  }),
]);

const filter = z
  .strictObject({
    javascript: z.string().min(1).max(10_000).optional().describe("An expression over `record`"),
    jq: z.string().min(1).max(10_000).optional().describe("A jq expression over the record"),
    timeoutMs: z.number().int().min(5).max(10_000).default(250).describe("For one record"),
    maxBytes: z
      .number()
      .int()
      .min(64)
      .max(262_144)
      .default(65_536)
      .describe("Of what it makes of one record"),
    memoryMiB: z.number().int().min(4).max(256).default(16).describe("Memory of its worker"),
    onError: z
      .enum(["keep", "drop"])
      .default("keep")
      .describe("What happens to a record on which it fails: kept as it was with the reason, or dropped"),
  })
  .refine(({ javascript, jq }) => (javascript === undefined) !== (jq === undefined), {
    message: "needs exactly one of javascript and jq",
  });

const shape = z
  .strictObject({
    sensor: z
      .string()
      .min(1)
      .max(500)
      .optional()
      .describe("How sensors are named, such as farm/{site}/{sensor}/#: the parts become fields"),
    fields: z
      .record(z.string().min(1).max(200), fieldMapping)
      .optional()
      .describe("New name → old name, or {from, scale, offset}"),
    keep: z.array(z.string()).optional().describe("Only these fields are stored"),
    drop: z.array(z.string()).optional().describe("These fields are not stored"),
    add: z
      .record(z.string().min(1).max(200), z.union([z.string(), z.number(), z.boolean()]))
      .optional()
      .describe("Fields that every record gets"),
    filter: filter.optional(),
    deadband: z
      .strictObject({
        fields: z
          .record(z.string().min(1), band)
          .describe("Field → change that is worth a record; * stands for every number"),
        maxSilenceSeconds: seconds
          .default(600)
          .describe("A record is stored after so long, also without a change"),
      })
      .optional(),
    sample: z
      .strictObject({
        everySeconds: seconds.optional().describe("At most one record of a sensor in so long"),
        oneIn: z.number().int().min(1).max(1_000_000).optional().describe("Each n-th record of a sensor"),
      })
      .optional(),
  })
  .describe("What is stored of what is read; docs/guide/sources.md");

export type ShapeConfig = z.infer<typeof shape>;
export type FilterConfig = z.infer<typeof filter>;
export type FieldMapping = z.infer<typeof fieldMapping>;

const shared = {
  name: name.describe(
    "Unlike those of the other sources; sensors are named after it where they have no name of their own",
  ),
  stream: streamName
    .default("sensors")
    .describe("Stream at the gateway in which its records are kept; it must be there"),
  shape: shape.optional(),
};

const csv = z
  .strictObject({
    delimiter: z.string().length(1).default(",").describe("What stands between two values"),
    columns: z
      .array(z.string().min(1).max(200))
      .min(1)
      .max(1_000)
      .optional()
      .describe("Names of the columns; unless given the first line has them"),
    sensorColumn: z.string().default("sensor").describe("The column that names the sensor"),
    timeColumn: z.string().default("time").describe("The column that holds the time"),
  })
  .optional();

export type CsvConfig = z.infer<typeof csv>;

const lineFormat = z.enum(["json-lines", "csv", "nmea", "text"]).describe("What its lines are");
export type LineFormat = z.infer<typeof lineFormat>;

const undecodable = z
  .enum(["raw", "drop"])
  .optional()
  .describe("What no format fits is stored raw with the reason, or dropped and counted");

const cobs = z
  .strictObject({
    crc: z
      .enum(["ccitt-false", "xmodem", "x25", "modbus", "none"])
      .default("ccitt-false")
      .describe("Which CRC-16 ends a frame"),
    crcOrder: z.enum(["big", "little"]).default("big").describe("Which byte of the checksum comes first"),
    payload: z.enum(["json", "layout", "raw"]).default("json").describe("What a frame holds"),
    layout: z
      .array(
        z
          .string()
          .regex(/^[^:]{1,200}:(u8|i8|[ui](16|32|64)[lb]e|f(32|64)[lb]e)$/, "such as temperature:f32le"),
      )
      .min(1)
      .max(200)
      .optional()
      .describe("The numbers of a binary payload, in their order"),
  })
  .optional();

export type CobsConfig = z.infer<typeof cobs>;

const device = {
  path: path().describe(
    "Device file; prefer /dev/serial/by-id/…, which survives replugging; relative to this file",
  ),
  baudRate: z
    .number()
    .int()
    .min(50)
    .max(4_000_000)
    .default(115_200)
    .describe("Bits a second, as the device has it"),
  parity: z.enum(["none", "even", "odd"]).optional().describe("none unless given"),
};

const serialSource = z.strictObject({
  type: z.literal("serial"),
  ...shared,
  ...device,
  format: z
    .enum([...lineFormat.options, "cobs"])
    .default("json-lines")
    .describe("What its lines are; cobs: frames that end with a zero byte"),
  csv,
  cobs,
  undecodable,
});

const register = z.strictObject({
  field: z.string().min(1).max(200).describe("The field that it becomes"),
  unit: z.number().int().min(1).max(247).default(1).describe("Address of the device on the line"),
  sensor: z.string().min(1).max(150).optional().describe("The source's name and the unit unless given"),
  table: z.enum(["holding", "input", "coil", "discrete"]).default("holding").describe("Kind of register"),
  address: z.number().int().min(0).max(65_535).describe("Counted from 0"),
  as: z
    .enum(["u16", "i16", "u32", "i32", "f32", "u64", "i64", "f64"])
    .default("u16")
    .describe("How many registers make the number, and how"),
  wordOrder: z.enum(["big", "little"]).default("big").describe("Which register of a number comes first"),
  scale: z.number().default(1).describe("What is read is multiplied by it"),
  offset: z.number().default(0).describe("… and this is added then"),
});

export type RegisterConfig = z.infer<typeof register>;

const modbusSource = z.strictObject({
  type: z.literal("modbus"),
  ...shared,
  ...device,
  everySeconds: seconds.default(5).describe("How often the registers are read"),
  timeoutMs: z.number().int().min(20).max(60_000).default(500).describe("How long an answer may take"),
  registers: z.array(register).min(1).max(500).describe("What is read"),
});

const mqttSource = z.strictObject({
  type: z.literal("mqtt"),
  ...shared,
  host: bindHost.default("127.0.0.1").describe("Address of the agent's own broker, to which sensors publish"),
  port: port.default(1884).describe("Its port"),
  topics: z.array(topicFilter).min(1).default(["#"]).describe("Topic filters that are stored"),
  users: z
    .array(
      z.strictObject({
        username: z.string().min(1).describe("As the sensor says it"),
        password: z.string().min(8).describe("At least 8 characters"),
      }),
    )
    .default([])
    .describe("Who may publish; needed when host is not loopback"),
  discoveryPrefix: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .describe("Where Home Assistant discovery is published; homeassistant unless given"),
});

const fileSource = z.strictObject({
  type: z.literal("file"),
  ...shared,
  path: path().describe(
    "The file that is written to, or a pattern for several, such as /var/log/app/*.log; rotated ones are found beside it",
  ),
  maxFiles: z
    .number()
    .int()
    .min(1)
    .max(1_000)
    .default(100)
    .describe("Of a pattern, how many are open at once; those that are quiet make room"),
  from: z
    .enum(["start", "end"])
    .default("start")
    .describe("Where a file is begun that was there before the source was"),
  format: lineFormat.default("text"),
  csv,
  undecodable,
  multiline: z
    .strictObject({
      start: pattern.describe("The first line of a record; lines that do not match belong to the one before"),
      flushAfterMs: z
        .number()
        .int()
        .min(10)
        .max(600_000)
        .default(1_000)
        .describe("A record ends when nothing came for so long"),
    })
    .optional(),
  pollMs: z.number().int().min(10).max(60_000).default(250).describe("How often the file is looked at"),
  rotateWaitMs: z
    .number()
    .int()
    .min(0)
    .max(600_000)
    .default(2_000)
    .describe("A file that was renamed may grow until it was quiet for so long"),
});

const httpSource = z.strictObject({
  type: z.literal("http"),
  ...shared,
  host: bindHost.default("127.0.0.1").describe("Address to bind; 127.0.0.1 is this machine alone"),
  port: port.default(8082).describe("Port to which programs post"),
  tokens: z
    .array(z.string().min(16).max(500))
    .default([])
    .describe("Bearer tokens, one of which must be sent; needed when host is not loopback"),
  maxBodyBytes: z
    .number()
    .int()
    .min(1_024)
    .max(16_777_216)
    .default(1_048_576)
    .describe("Largest body, unpacked"),
});

const commandSource = z.strictObject({
  type: z.literal("command"),
  ...shared,
  command: z
    .array(z.string().min(1))
    .min(1)
    .max(200)
    .describe("Program and its arguments; no shell is between"),
  cwd: path().optional().describe("Folder in which it runs; relative to this file"),
  env: z
    .record(z.string(), z.string())
    .optional()
    .describe("Added to PATH, HOME, LANG, TZ and USER; nothing else is passed on"),
  format: lineFormat.default("json-lines"),
  csv,
  undecodable,
  everySeconds: seconds
    .optional()
    .describe(
      "Runs it so often; unless given it is meant to run for ever, and is started again when it ends",
    ),
  timeoutSeconds: seconds.default(60).describe("With everySeconds: it is killed after so long"),
});

const hostSource = z.strictObject({
  type: z.literal("host"),
  ...shared,
  everySeconds: seconds.default(10).describe("How often it is looked"),
  disks: z
    .array(z.string().startsWith("/", "a path that begins with /"))
    .max(50)
    .default(["/"])
    .describe("Where file systems are mounted"),
  interfaces: z
    .array(z.string().min(1))
    .max(50)
    .optional()
    .describe("Network interfaces; all but lo unless given"),
});

const cameraSource = z.strictObject({
  type: z.literal("camera"),
  name,
  url: address(/^rtsps?:\/\//, "an rtsp:// address").describe("The camera's RTSP address"),
  username: z.string().optional().describe("Of an account that may look and nothing else"),
  password: z.string().optional().describe("Kept out of the address, so that it is never printed"),
  stallSeconds: z.number().min(1).max(300).default(8).describe("Reconnect when no picture came for so long"),
});

const source = z.discriminatedUnion("type", [
  serialSource,
  modbusSource,
  mqttSource,
  fileSource,
  httpSource,
  commandSource,
  hostSource,
  cameraSource,
]);

/** source-checks.ts has what they must keep to among themselves. */
export const sources = z
  .array(source)
  .max(200)
  .default([])
  .describe("Where records and footage come from; docs/guide/sources.md and cameras.md");

export type SourceConfig = z.infer<typeof source>;
export type SerialSourceConfig = Extract<SourceConfig, { type: "serial" }>;
export type ModbusSourceConfig = Extract<SourceConfig, { type: "modbus" }>;
export type MqttSourceConfig = Extract<SourceConfig, { type: "mqtt" }>;
export type FileSourceConfig = Extract<SourceConfig, { type: "file" }>;
export type HttpSourceConfig = Extract<SourceConfig, { type: "http" }>;
export type CommandSourceConfig = Extract<SourceConfig, { type: "command" }>;
export type HostSourceConfig = Extract<SourceConfig, { type: "host" }>;
export type CameraSourceConfig = Extract<SourceConfig, { type: "camera" }>;
