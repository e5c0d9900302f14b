import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import {
  celsius,
  cpuPercent,
  cpuTimes,
  loadFigures,
  memoryFigures,
  networkCounters,
} from "../../../agent/sources/decode/host-figures.ts";
import { HostSource } from "../../../agent/sources/host.ts";
import { systemClock } from "../../../runtime/clock.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, until } from "./source-parts.ts";

test("this machine's own figures become records", async (t) => {
  const buffer = await openBuffer(await temporaryFolder(t));
  const source = new HostSource({
    ...sourceParts(buffer),
    config: {
      type: "host",
      name: "pi",
      stream: "sensors",
      everySeconds: 0.1,
      disks: ["/", "/no/such/mount"],
    },
  });
  t.after(() => source.close());
  await source.start();
  await until(() => buffer.usage().waitingRecords >= 4);
  const records = await stored(buffer);
  const machine = records.find(({ sensor }) => sensor === "pi")!;
  for (const name of ["cpu_percent", "load_1", "memory_total_bytes", "memory_used_percent", "uptime_seconds"])
    assert.ok(Number.isFinite(machine[name]), name);
  const disk = records.find(({ sensor }) => sensor === "pi/disk/")!;
  assert.ok((disk.total_bytes as number) > 0 && (disk.used_percent as number) <= 100);
  assert.match(source.status().lastError ?? "", /no\/such\/mount: ENOENT/);
  assert.equal(source.status().health, "running");
  await source.close();
  await buffer.close();
});

test("figures are what the kernel wrote", async (t) => {
  const root = await temporaryFolder(t);
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  };
  const dev = (received: number): string =>
    `Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 5 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\n  eth0: ${received} 9 1 0 0 0 0 0 100 4 2 0 0 0 0 0\n`;
  await put("proc/stat", "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1\n");
  await put("proc/net/dev", dev(1_000));
  await put(
    "proc/meminfo",
    "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\n".replace(/: /g, ":   "),
  );
  await put("proc/loadavg", "0.10 0.20 0.30 1/100 1234\n");
  await put("proc/uptime", "77.5 10.0\n");
  await put("sys/class/thermal/thermal_zone0/temp", "48312\n");
  await put("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
  const buffer = await openBuffer(join(root, "buffer"));
  let nowMs = 1_000;
  const source = new HostSource({
    ...sourceParts(buffer),
    clock: { ...systemClock, nowUs: () => systemClock.nowUs(), monotonicMs: () => nowMs },
    root,
    // Long enough that the kernel's figures change between two looks also on a slow machine.
    config: { type: "host", name: "pi", stream: "sensors", everySeconds: 3, disks: [] },
  });
  t.after(() => source.close());
  await source.start();
  await until(() => source.status().health === "running");
  // It has looked once.
  writeFileSync(join(root, "proc/stat"), "cpu  150 0 150 900 0 0 0 0 0 0\n");
  writeFileSync(join(root, "proc/net/dev"), dev(3_000));
  nowMs += 2_000;
  await until(() => buffer.usage().waitingRecords >= 2);
  const [machine, network] = await stored(buffer);
  const { time: _, ...figures } = machine!;
  assert.deepEqual(figures, {
    device: "pi-1",
    sensor: "pi",
    cpu_percent: 50,
    load_1: 0.1,
    load_5: 0.2,
    load_15: 0.3,
    memory_total_bytes: 1_024_000,
    memory_available_bytes: 256_000,
    memory_used_percent: 75,
    swap_used_bytes: 6_144,
    temperature_c: 48.312,
    temperature_cpu_thermal_c: 48.312,
    uptime_seconds: 77.5,
  });
  assert.equal(network!.sensor, "pi/net/eth0");
  assert.equal(network!.received_bytes_per_second, 1_000);
  assert.deepEqual([network!.sent_bytes_per_second, network!.received_errors], [0, 0]);
  await source.close();
  await buffer.close();
});

test("no text of a kernel makes them throw or say what is no number", () => {
  const lines = fc.oneof(
    fc.string({ maxLength: 200 }),
    fc
      .array(fc.integer(), { maxLength: 20 })
      .map((numbers) => `cpu  ${numbers.join(" ")}\neth0: ${numbers.join(" ")}\n`),
  );
  fc.assert(
    fc.property(lines, lines, (text, other) => {
      const [before, now] = [cpuTimes(text), cpuTimes(other)];
      if (before && now) assert.ok((cpuPercent(before, now) ?? 0) >= 0);
      for (const value of Object.values({ ...loadFigures(text), ...memoryFigures(text) }))
        assert.ok(Number.isFinite(value));
      assert.ok(Number.isFinite(celsius(text) ?? 0));
      networkCounters(text);
    }),
  );
});
