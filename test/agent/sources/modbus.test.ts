import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, rename } from "node:fs/promises";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import { ServerSerial } from "modbus-serial";
import {
  decodeAnswer,
  encodeRequest,
  planRequests,
  valueIn,
} from "../../../agent/sources/decode/modbus-rtu.ts";
import { ModbusSource } from "../../../agent/sources/modbus.ts";
import { ModbusPlan } from "../../../agent/sources/serial/modbus-plan.ts";
import type { ModbusSourceConfig, RegisterConfig } from "../../../config/source-config.ts";
import { openBuffer, temporaryFolder } from "../buffer/records/buffer-fixture.ts";
import { sourceParts, stored, until } from "./source-parts.ts";

const register = (one: Partial<RegisterConfig> & { field: string; address: number }): RegisterConfig => ({
  unit: 1,
  table: "holding",
  as: "u16",
  wordOrder: "big",
  scale: 1,
  offset: 0,
  ...one,
});

/** Two ends of a serial line. */
async function line(
  t: TestContext,
  given?: string,
  ourName = "ours",
): Promise<{ folder: string; ours: string; theirs: string; socat: ChildProcess }> {
  const folder = given ?? (await temporaryFolder(t));
  const [ours, theirs] = [join(folder, ourName), join(folder, "theirs")];
  const socat = spawn("socat", [`pty,raw,echo=0,link=${ours}`, `pty,raw,echo=0,link=${theirs}`], {
    stdio: "ignore",
  });
  t.after(() => socat.kill());
  for (const path of [ours, theirs]) {
    await until(() =>
      access(path).then(
        () => true,
        () => false,
      ),
    );
  }
  return { folder, ours, theirs, socat };
}

/** A real Modbus RTU server; unit 9 is not there. */
async function meter(
  path: string,
  lacks: readonly number[] = [],
  onRead = (_address: number): void => {},
): Promise<() => Promise<void>> {
  const holding = Buffer.alloc(200);
  holding.writeInt16BE(-215, 0);
  holding.writeUInt32BE(123_456_789, 2);
  holding.writeFloatBE(1.5, 6);
  holding.writeUInt16BE(0x0002, 100);
  holding.writeUInt16BE(0x0001, 102);
  const server = new ServerSerial(
    {
      getHoldingRegister: (address: number) => {
        onRead(address);
        // Application Protocol §7: illegal data address.
        if (lacks.includes(address)) throw Object.assign(new Error("lacking"), { modbusErrorCode: 2 });
        return holding.readUInt16BE(address * 2);
      },
      getInputRegister: (address: number) => address + 1_000,
      getCoil: (address: number) => address % 3 === 0,
      getDiscreteInput: (address: number) => address === 2,
    },
    { port: path, baudRate: 19_200, unitID: 1, openCallback: () => {} } as never,
  );
  (server as unknown as NodeJS.EventEmitter).on("error", () => {});
  await once(server as unknown as NodeJS.EventEmitter, "initialized");
  return () => new Promise((resolve) => server.close(() => resolve()));
}

function source(
  t: TestContext,
  path: string,
  config: Partial<ModbusSourceConfig>,
  parts: ReturnType<typeof sourceParts>,
) {
  const made = new ModbusSource({
    ...parts,
    config: {
      type: "modbus",
      name: "rs485",
      path,
      baudRate: 19_200,
      stream: "sensors",
      everySeconds: 0.1,
      // The meter lives in this process: what holds one of them up holds the other up, too.
      timeoutMs: 2_000,
      registers: [],
      ...config,
    },
  });
  t.after(() => made.close());
  return made;
}

test("registers, coils and inputs of a real server are read; a unit that is silent hurts no other", async (t) => {
  const { ours, theirs, socat } = await line(t);
  const closeMeter = await meter(theirs);
  const buffer = await openBuffer(await temporaryFolder(t));
  const made = source(
    t,
    ours,
    {
      registers: [
        register({ field: "temperature", address: 0, as: "i16", scale: 0.1 }),
        register({ field: "energy", address: 1, as: "u32" }),
        register({ field: "power", address: 3, as: "f32" }),
        register({ field: "swapped", address: 50, as: "u32", wordOrder: "little" }),
        register({ field: "input", address: 7, table: "input", sensor: "other" }),
        register({ field: "pump", address: 3, table: "coil" }),
        register({ field: "door", address: 2, table: "discrete" }),
        register({ field: "gone", address: 0, unit: 9 }),
      ],
    },
    sourceParts(buffer),
  );
  await made.start();
  await until(() => buffer.usage().waitingRecords >= 2);
  const records = (await stored(buffer)).map(({ time: _, ...rest }) => rest);
  assert.deepEqual(
    records.find(({ sensor }) => sensor === "rs485/1"),
    {
      device: "pi-1",
      sensor: "rs485/1",
      pump: true,
      door: true,
      temperature: -21.5,
      energy: 123_456_789,
      power: 1.5,
      swapped: 65_538,
    },
  );
  assert.equal(records.find(({ sensor }) => sensor === "other")!.input, 1_007);
  assert.match(made.status().lastError ?? "", /unit 9.*no answer/);
  assert.equal(made.status().health, "running");
  await made.close();
  await closeMeter();
  socat.kill();
  await buffer.close();
});

test("a device that lacks registers between those that are wanted gives the others", async (t) => {
  const { ours, theirs } = await line(t);
  // Two that nobody asks for, and one that the config has wrong.
  const closeMeter = await meter(theirs, [2, 4, 10]);
  t.after(closeMeter);
  const buffer = await openBuffer(await temporaryFolder(t));
  t.after(() => buffer.close());
  const made = source(
    t,
    ours,
    {
      registers: [
        register({ field: "temperature", address: 0, as: "i16" }),
        register({ field: "next", address: 1 }),
        register({ field: "power", address: 3 }),
        register({ field: "wrong", address: 10 }),
      ],
    },
    sourceParts(buffer),
  );
  await made.start();
  await until(async () => (await stored(buffer)).length >= 2);
  await until(() => Promise.resolve(/holding 10: illegal data address/.test(made.status().lastError ?? "")));
  for (const { temperature, next, power, wrong } of await stored(buffer))
    assert.deepEqual([temperature, next, power, wrong], [-215, 1_883, 16_320, undefined]);
});

test("a device that refuses everything for a time is asked for all at once again", async (t) => {
  const { ours, theirs } = await line(t);
  // As an inverter at night. Nobody wants 5, which is read only where its neighbours are read at once.
  const wanted = [0, 1, 2, 3, 4, 6, 7, 8, 9];
  const lacks = [...wanted];
  const reads: number[] = [];
  const closeMeter = await meter(theirs, lacks, (address) => reads.push(address));
  t.after(closeMeter);
  const buffer = await openBuffer(await temporaryFolder(t));
  t.after(() => buffer.close());
  const registers = wanted.map((address) => register({ field: `f${address}`, address }));
  const made = source(t, ours, { registers }, sourceParts(buffer));
  await made.start();
  await until(() => Promise.resolve(/holding 9: illegal data address/.test(made.status().lastError ?? "")));
  // It is not asked for each by itself all night.
  await until(() => Promise.resolve(/holding 0: illegal data address/.test(made.status().lastError ?? "")));
  lacks.length = 0;
  reads.length = 0;
  await until(() => Promise.resolve(reads.includes(5)));
  await until(async () => {
    const last = (await stored(buffer)).at(-1);
    return registers.every(({ field }) => typeof last?.[field] === "number");
  });
});

test("a device that refuses everything costs its line little more than a request a round", () => {
  const registers = Array.from({ length: 100 }, (_, address) => register({ field: `f${address}`, address }));
  const plan = new ModbusPlan(planRequests(registers)[0]!);
  const ask = (): number => {
    let asked = 0;
    const left = [...plan.beginRound()];
    for (let request = left.shift(); request !== undefined; request = left.shift()) {
      asked++;
      left.unshift(...(plan.refused(request) ?? []));
    }
    return asked;
  };
  // The first round finds out.
  assert.equal(ask(), 199);
  const rounds = Array.from({ length: 200 }, ask);
  assert.ok(rounds.filter((asked) => asked > 1).length <= 16, String(rounds));
});

test("an adapter that is pulled is said to be gone, and is read again once it is back", async (t) => {
  const { folder, ours, theirs, socat } = await line(t);
  const closeMeter = await meter(theirs);
  const buffer = await openBuffer(await temporaryFolder(t));
  const registers = [register({ field: "temperature", address: 0, as: "i16", scale: 0.1 })];
  // So rarely that only the line itself can tell that it is gone. An answer that came too late would not
  // be asked for again before the test ends.
  const rarely = { registers, everySeconds: 600, timeoutMs: 30_000 };
  const made = source(t, ours, rarely, sourceParts(buffer));
  await made.start();
  await until(() => buffer.usage().waitingRecords === 1);
  assert.equal(made.status().health, "running");
  socat.kill();
  await until(() => made.status().health === "backing-off");
  await until(() => /SERIAL_PORT: .*ours.*(by-id|cable)/.test(made.status().lastError ?? ""));
  await closeMeter();
  // The meter is there before the source finds the line: what comes before it opens its end is lost.
  const again = await line(t, folder, "aside");
  const closeAgain = await meter(again.theirs);
  await rename(again.ours, ours);
  await until(() => buffer.usage().waitingRecords === 2);
  assert.equal(made.status().health, "running");
  await made.close();
  await closeAgain();
  again.socat.kill();
  await buffer.close();
});

test("a line on which nobody answers backs off with a hint", async (t) => {
  const { ours, socat } = await line(t);
  const buffer = await openBuffer(await temporaryFolder(t));
  const registers = [register({ field: "a", address: 0 })];
  const made = source(t, ours, { registers, timeoutMs: 20, everySeconds: 0.05 }, sourceParts(buffer));
  await made.start();
  await until(() => /MODBUS_SILENT.*A and B/.test(made.status().lastError ?? ""));
  await made.close();
  socat.kill();
  await buffer.close();
});

test("neighbours are read together, within the protocol's limits", () => {
  const registers = fc.array(
    fc
      .tuple(
        fc.nat(400),
        fc.constantFrom("u16" as const, "u32" as const, "f64" as const),
        fc.constantFrom("holding" as const, "coil" as const),
        fc.integer({ min: 1, max: 3 }),
      )
      .map(([address, as, table, unit]) => register({ field: "f", address, as, table, unit })),
    { minLength: 1, maxLength: 60 },
  );
  fc.assert(
    fc.property(registers, (wanted) => {
      const requests = planRequests(wanted);
      assert.equal(
        requests.reduce((sum, { values }) => sum + values.length, 0),
        wanted.length,
      );
      for (const request of requests) {
        assert.ok(request.count <= (request.table === "coil" ? 2_000 : 125));
        const data = Buffer.alloc(
          request.table === "coil" ? Math.ceil(request.count / 8) : request.count * 2,
        );
        for (const value of request.values) valueIn(request, value, data);
      }
    }),
  );
});

test("no bytes at all make an answer throw, and only whole ones with their checksum count", () => {
  const [request] = planRequests([register({ field: "a", address: 0, as: "u32" })]);
  assert.equal(encodeRequest(request!).toString("hex"), "010300000002c40b");
  const answer = Buffer.from("01030400010002" + "2a32", "hex");
  assert.deepEqual(decodeAnswer(request!, answer), { data: Buffer.from("00010002", "hex") });
  for (let cut = 0; cut < answer.length; cut++)
    assert.ok("incomplete" in decodeAnswer(request!, answer.subarray(0, cut)));
  assert.deepEqual(decodeAnswer(request!, Buffer.from("018302c0f1", "hex")), {
    refused: "illegal data address",
  });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
      assert.ok(Object.keys(decodeAnswer(request!, Buffer.from(bytes))).length === 1);
    }),
    { numRuns: 2_000 },
  );
});
