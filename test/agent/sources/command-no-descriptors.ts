/** A child process that runs out of file descriptors while a command is due: the source says so, and goes on afterwards. */
import type { RecordBuffer } from "../../../agent/buffer/record-buffer.ts";
import { CommandSource } from "../../../agent/sources/command.ts";
import { takeDescriptors } from "../../support/descriptors.ts";
import { openBuffer } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, until } from "./source-parts.ts";

const buffer: RecordBuffer = await openBuffer(process.argv[2]!);
const source = new CommandSource({
  ...sourceParts(buffer),
  environment: { PATH: process.env.PATH },
  config: {
    type: "command",
    name: "meter",
    command: ["echo", '{"n":1}'],
    format: "json-lines",
    stream: "sensors",
    everySeconds: 0.05,
    timeoutSeconds: 60,
  },
});
await source.start();
await until(() => source.status().records > 0);
const giveBack = takeDescriptors();
await until(() => /could not be started/.test(source.status().lastError ?? ""));
giveBack();
const { records } = source.status();
await until(() => source.status().records > records);
await source.close();
await buffer.close();
console.log("goes on");
