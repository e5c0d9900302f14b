/** sim.yaml: the stand-in boards, sensors and cameras. */
import { z } from "zod";
import { logLevel, name, path, port } from "./fields.ts";

export const simConfig = z.strictObject({
  seed: z
    .number()
    .int()
    .min(0)
    .default(1)
    .describe("The same seed gives the same signals and the same anomalies"),
  dataDir: path().default("sim").describe("Where the truth is written; relative to this file"),
  control: z
    .strictObject({ host: z.string().default("127.0.0.1"), port: port.default(8082) })
    .prefault({})
    .describe("HTTP: faults on request, what was sent and acknowledged so far"),
  board: z
    .strictObject({
      path: path().describe("Where the PTY's name appears, as a link; relative to this file"),
      hz: z.number().min(0.1).max(1_000).default(10),
      sensor: name.default("board"),
    })
    .optional(),
  sensors: z
    .strictObject({
      url: z
        .string()
        .regex(/^mqtt:\/\//, "an mqtt:// address")
        .default("mqtt://127.0.0.1:1884"),
      count: z.number().int().min(1).max(10_000).default(20),
      hz: z.number().min(0.01).max(1_000).default(1).describe("Messages a second of each sensor"),
    })
    .optional(),
  camera: z
    .strictObject({
      host: z.string().default("127.0.0.1"),
      port: port.default(8555).describe("Port of its RTSP server"),
      path: name.default("yard"),
      width: z.number().int().min(64).max(3_840).default(1_280),
      height: z.number().int().min(64).max(2_160).default(720),
      fps: z.number().min(1).max(60).default(15),
      keyFrameSeconds: z.number().min(0.2).max(10).default(2),
    })
    .optional(),
  anomalies: z.strictObject({ everySeconds: z.number().min(1).default(45) }).prefault({}),
  log: logLevel,
});

export type SimConfig = z.infer<typeof simConfig>;
