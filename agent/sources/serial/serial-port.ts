/**
 * A serial port that notices when its device is pulled.
 *
 * After a hang-up (the USB adapter is gone, the other end of a PTY is closed) Linux answers each
 * read with 0 bytes. The library takes that for "nothing yet" and asks again at once, for ever: a
 * core is busy and no `close` comes. Here 0 bytes mean what tty(4) means by them, the end.
 */
import { read } from "node:fs";
import { promisify } from "node:util";
import { SerialPort, type SerialPortOpenOptions } from "serialport";
import { HeadwaterError } from "../../../runtime/errors.ts";

/** A device that is plugged in again is back within so long; to try costs nothing. */
export const REOPEN_WITHIN_MS = 5_000;

const readAsync = promisify(read);

type Binding = typeof SerialPort.binding;
type OpenPort = Awaited<ReturnType<Binding["open"]>>;
type LinuxPort = OpenPort & {
  fd: number | null;
  poller: { once(event: "readable", then: Settled): unknown };
};
type Settled = (error: Error | null) => void;

/** Not opened yet. Emits `close` with an error of `disconnected: true` when the device goes away. */
function serialPort(path: string, baudRate: number, parity: Parity): SerialPort {
  const options = { path, baudRate, parity, autoOpen: false, binding: noticingBinding };
  return new SerialPort(options as SerialPortOpenOptions<Binding>);
}

type Parity = "none" | "even" | "odd";

/** The port cannot be opened, or is gone. It is opened again, for ever. */
export class SerialPortError extends HeadwaterError {
  constructor(path: string, cause: unknown) {
    const message = cause instanceof Error ? cause.message : String(cause);
    super("SERIAL_PORT", { retryable: true, message: `${path}: ${message}`, hint: hintFor(message), cause });
  }
}

function hintFor(message: string): string {
  if (/no such file/i.test(message))
    return "plug the device in, or correct path; ls /dev/serial/by-id shows what is there";
  if (/permission/i.test(message)) return "the agent's user needs the group dialout";
  if (/lock/i.test(message)) return "another program has the port open";
  return "check the cable; the port is opened again by itself";
}

/** @throws SerialPortError */
export function openSerialPort(path: string, baudRate: number, parity: Parity = "none"): Promise<SerialPort> {
  const port = serialPort(path, baudRate, parity);
  return new Promise((resolve, reject) => {
    port.open((error) => (error ? reject(new SerialPortError(path, error)) : resolve(port)));
  });
}

const noticingBinding = {
  list: () => SerialPort.binding.list(),
  async open(options: Parameters<Binding["open"]>[0]): Promise<OpenPort> {
    const port = await SerialPort.binding.open(options as never);
    // Windows has no descriptor to read, and another way of saying that a device is gone.
    if ("poller" in port)
      port.read = (buffer, offset, length) => readOrEnd(port as LinuxPort, buffer, offset, length);
    return port;
  },
};

function refuseClosed(port: LinuxPort): asserts port is LinuxPort & { fd: number } {
  if (port.fd === null) throw Object.assign(new Error("the port is not open"), { canceled: true });
}

async function readOrEnd(port: LinuxPort, buffer: Buffer, offset: number, length: number) {
  for (;;) {
    refuseClosed(port);
    try {
      const { bytesRead } = await readAsync(port.fd, buffer, offset, length, null);
      if (bytesRead > 0) return { bytesRead, buffer };
    } catch (error) {
      // Closed while the read was under way: its poller is gone, and to ask that would end the process.
      refuseClosed(port);
      if (!isNothingYet(error)) throw Object.assign(error as Error, { disconnect: true });
      await new Promise<void>((resolve, reject) => {
        port.poller.once("readable", (failed) => (failed ? reject(failed) : resolve()));
      });
      continue;
    }
    throw Object.assign(new Error("the device is gone"), { disconnect: true });
  }
}

function isNothingYet(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "EAGAIN" || code === "EWOULDBLOCK" || code === "EINTR";
}
