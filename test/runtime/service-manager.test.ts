import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { type LogFields, silentLog } from "../../runtime/log.ts";
import { ServiceManager } from "../../runtime/service-manager.ts";
import { removeFolder } from "../support/remove-folder.ts";

/** Binds as systemd does, and prints each datagram on a line of its own, with | for line breaks. */
const LISTENER = `
  $| = 1;
  my $path = shift; $path =~ s/^@/\\0/;
  socket(my $in, AF_UNIX, SOCK_DGRAM, 0) or die; bind($in, pack_sockaddr_un($path)) or die "bind: $!";
  print "bound\\n";
  while (defined recv($in, my $message, 4096, 0)) { $message =~ s/\\n/|/g; print "$message\\n" }
`;

interface Manager {
  readonly path: string;
  /** The next message; rejects after a while. */
  next(): Promise<string>;
  /** Messages that came and nobody asked for yet. */
  readonly waiting: readonly string[];
  readonly process: ChildProcess;
}

async function serviceManager(t: TestContext, abstract = false): Promise<Manager> {
  const folder = await mkdtemp(join(tmpdir(), "headwater-notify-"));
  const path = abstract ? `@headwater-test-${process.pid}-${Date.now()}` : join(folder, "notify");
  const child = spawn("perl", ["-MSocket", "-e", LISTENER, path], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(async () => {
    child.kill("SIGKILL");
    await removeFolder(folder);
  });
  const lines: string[] = [];
  let wake = (): void => {};
  createInterface(child.stdout!).on("line", (line) => {
    lines.push(line);
    wake();
  });
  const next = async (): Promise<string> => {
    const late = setTimeout(() => child.kill("SIGKILL"), 60_000);
    while (lines.length === 0) {
      assert.equal(child.signalCode, null, "no message came");
      await new Promise<void>((resolve) => {
        wake = resolve;
        child.once("exit", () => resolve());
      });
    }
    clearTimeout(late);
    return lines.shift()!;
  };
  assert.equal(await next(), "bound");
  return { path, next, waiting: lines, process: child };
}

const fine = async (): Promise<void> => {};

test("the service manager hears when the program serves and when it ends", async (t) => {
  for (const abstract of [false, true]) {
    const manager = await serviceManager(t, abstract);
    const service = new ServiceManager({ environment: { NOTIFY_SOCKET: manager.path }, log: silentLog });
    service.starting();
    service.ready({ status: "serves\non port 1\0", probe: fine });
    assert.equal(await manager.next(), "READY=1|STATUS=serves on port 1 ");
    service.stopping();
    assert.equal(await manager.next(), "STOPPING=1|STATUS=draining");
    await service.close();
    await service.close();
  }
});

test("the watchdog is fed after each good probe, and never while a probe fails or hangs", async (t) => {
  const manager = await serviceManager(t);
  const warnings: LogFields[] = [];
  let warned = (): void => {};
  const log = {
    ...silentLog,
    warn: (fields: LogFields) => {
      warnings.push(fields);
      warned();
    },
  };
  const environment = {
    NOTIFY_SOCKET: manager.path,
    WATCHDOG_USEC: "90000",
    WATCHDOG_PID: String(process.pid),
  };
  const service = new ServiceManager({ environment, log });
  let good = 0;
  let probe = async (): Promise<void> => void good++;
  service.ready({ status: "", probe: () => probe() });
  assert.equal(await manager.next(), "READY=1|STATUS=");
  const fed = 3;
  for (let n = 0; n < fed; n++) assert.equal(await manager.next(), "WATCHDOG=1");

  const failures = 3;
  await new Promise<void>((resolve) => {
    let failed = 0;
    warned = () => {
      if (++failed === failures) resolve();
    };
    probe = () => Promise.reject(new Error("the disk is gone"));
  });
  assert.equal(warnings[0]?.error, "the disk is gone");
  // Pings of before the first failure may still come, however many; the sender keeps order, so this is behind them.
  let hangs = (): void => {};
  const hanging = new Promise<void>((resolve) => {
    hangs = resolve;
  });
  probe = () => {
    hangs();
    return new Promise(() => {});
  };
  await hanging;
  service.stopping();
  const rest: string[] = [];
  do rest.push(await manager.next());
  while (!rest.at(-1)?.startsWith("STOPPING"));
  assert.equal(fed + rest.length - 1, good, `one for each good probe, and none beside: ${rest}`);
  await service.close();
});

test("without a service manager nothing happens, and a watchdog of another process is not fed", async (t) => {
  const probe = (): Promise<void> => assert.fail("probed");
  for (const environment of [
    {},
    { NOTIFY_SOCKET: "" },
    { NOTIFY_SOCKET: "vsock:2:1" },
    { WATCHDOG_USEC: "1000" },
  ]) {
    const service = new ServiceManager({ environment, log: silentLog });
    assert.equal(service.listens, false);
    service.starting();
    service.ready({ status: "", probe });
    service.stopping();
    await service.close();
  }
  const manager = await serviceManager(t);
  for (const watchdog of [{ WATCHDOG_PID: "1", WATCHDOG_USEC: "1000" }, { WATCHDOG_USEC: "soon" }]) {
    const environment = { NOTIFY_SOCKET: manager.path, ...watchdog };
    const service = new ServiceManager({ environment, log: silentLog });
    service.ready({ status: "", probe });
    assert.match(await manager.next(), /READY/);
    await service.close();
  }
});

test("a service manager that is gone is told of once, and ends nothing", async (t) => {
  const manager = await serviceManager(t);
  manager.process.kill("SIGKILL");
  await once(manager.process, "exit");
  let warned = (_: LogFields): void => {};
  const warning = new Promise<LogFields>((resolve) => {
    warned = resolve;
  });
  // The sender by itself keeps no program alive, so this test must.
  const awake = setInterval(() => {}, 1_000);
  t.after(() => clearInterval(awake));
  const service = new ServiceManager({
    environment: { NOTIFY_SOCKET: manager.path },
    log: { ...silentLog, warn: (fields) => warned(fields) },
  });
  service.ready({ status: "", probe: fine });
  assert.match(String((await warning).error), /^send: /);
  service.stopping();
  await service.close();
});
