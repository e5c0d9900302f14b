/**
 * Modbus RTU (Modbus over Serial Line V1.02, Application Protocol V1.1b3): the four requests that read,
 * and what their answers hold. What writes is not here: a source only reads.
 */
import type { RegisterConfig } from "../../../config/source-config.ts";
import { crc16 } from "./crc16.ts";
import { exact } from "./exact-number.ts";

type Table = RegisterConfig["table"];

/** Application Protocol §6.1 to §6.4. */
const FUNCTIONS: Readonly<Record<Table, number>> = { coil: 1, discrete: 2, holding: 3, input: 4 };
const MAX_REGISTERS = 125;
const MAX_BITS = 2_000;
const EXCEPTION = 0x80;
const EXCEPTIONS: Readonly<Record<number, string>> = {
  1: "illegal function",
  2: "illegal data address",
  3: "illegal data value",
  4: "device failure",
  6: "device busy",
  11: "gateway target did not respond",
};
/** What a device answers that lacks one of the registers, also a hole between two, or does not give so many at once. */
const REFUSALS: readonly number[] = [2, 3];
/** Values so far apart are read at once rather than one by one: a request costs more than some registers. */
const MAX_HOLE = 8;

/** The size in registers. */
const REGISTERS: Readonly<Record<RegisterConfig["as"], number>> = {
  u16: 1,
  i16: 1,
  u32: 2,
  i32: 2,
  f32: 2,
  u64: 4,
  i64: 4,
  f64: 4,
};

/** Neighbouring values of one device, read by one request. */
export interface ModbusRequest {
  readonly unit: number;
  readonly table: Table;
  readonly address: number;
  readonly count: number;
  readonly values: readonly RegisterConfig[];
}

/** As few requests as the limits allow. */
export function planRequests(registers: readonly RegisterConfig[]): ModbusRequest[] {
  const sorted = [...registers].sort(
    (a, b) => a.unit - b.unit || FUNCTIONS[a.table] - FUNCTIONS[b.table] || a.address - b.address,
  );
  const requests: ModbusRequest[] = [];
  for (const value of sorted) {
    const last = requests.at(-1);
    const end = value.address + sizeOf(value);
    const limit = isBits(value.table) ? MAX_BITS : MAX_REGISTERS;
    const joins =
      last !== undefined &&
      last.unit === value.unit &&
      last.table === value.table &&
      value.address - (last.address + last.count) <= MAX_HOLE &&
      end - last.address <= limit;
    if (joins) {
      const count = Math.max(last.count, end - last.address);
      requests[requests.length - 1] = { ...last, count, values: [...last.values, value] };
    } else {
      requests.push(requestFor([value]));
    }
  }
  return requests;
}

/**
 * The same values by two requests, where the hole between two of them is largest: for a device that refuses them at once.
 * Undefined for a single value.
 */
export function splitRequest({ values }: ModbusRequest): [ModbusRequest, ModbusRequest] | undefined {
  let at = 0;
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 1; i < values.length; i++) {
    const before = values[i - 1]!;
    const hole = values[i]!.address - (before.address + sizeOf(before));
    if (hole > largest) [at, largest] = [i, hole];
  }
  return at === 0 ? undefined : [requestFor(values.slice(0, at)), requestFor(values.slice(at))];
}

function requestFor(values: readonly RegisterConfig[]): ModbusRequest {
  const { unit, table, address } = values[0]!;
  const end = values.reduce((last, value) => Math.max(last, value.address + sizeOf(value)), 0);
  return { unit, table, address, count: end - address, values };
}

function isBits(table: Table): boolean {
  return table === "coil" || table === "discrete";
}

function sizeOf({ table, as }: RegisterConfig): number {
  return isBits(table) ? 1 : REGISTERS[as];
}

export function encodeRequest({ unit, table, address, count }: ModbusRequest): Buffer {
  const frame = Buffer.alloc(8);
  frame[0] = unit;
  frame[1] = FUNCTIONS[table];
  frame.writeUInt16BE(address, 2);
  frame.writeUInt16BE(count, 4);
  // Serial Line §2.5.1.2: the low byte of the checksum goes first.
  frame.writeUInt16LE(crc16("modbus", frame.subarray(0, 6)), 6);
  return frame;
}

function dataBytes({ table, count }: ModbusRequest): number {
  return isBits(table) ? Math.ceil(count / 8) : count * 2;
}

export type ModbusAnswer =
  | { readonly data: Buffer }
  | { readonly problem: string }
  /** It may give them by smaller requests. */
  | { readonly refused: string }
  /** More bytes are needed. */
  | { readonly incomplete: true };

/** Looks whether what has come so far is the answer to a request. Never throws. */
export function decodeAnswer(request: ModbusRequest, bytes: Buffer): ModbusAnswer {
  const [unit, code] = bytes;
  if (unit === undefined || code === undefined) return { incomplete: true };
  if (unit !== request.unit) return { problem: `an answer of unit ${unit}` };
  if (code === (FUNCTIONS[request.table] | EXCEPTION)) {
    if (bytes.length < 5) return { incomplete: true };
    const number = bytes[2]!;
    if (!checked(bytes.subarray(0, 5))) return { problem: "a wrong checksum" };
    const said = EXCEPTIONS[number] ?? `exception ${number}`;
    return REFUSALS.includes(number) ? { refused: said } : { problem: said };
  }
  if (code !== FUNCTIONS[request.table]) return { problem: `an answer to function ${code}` };
  const wanted = dataBytes(request);
  if (bytes.length >= 3 && bytes[2] !== wanted)
    return { problem: `${bytes[2]} bytes where ${wanted} were asked for` };
  const length = 3 + wanted + 2;
  if (bytes.length < length) return { incomplete: true };
  if (!checked(bytes.subarray(0, length))) return { problem: "a wrong checksum" };
  return { data: bytes.subarray(3, 3 + wanted) };
}

function checked(frame: Buffer): boolean {
  return frame.readUInt16LE(frame.length - 2) === crc16("modbus", frame.subarray(0, -2));
}

/** @param data of the answer to `request`, which asks for `value` */
export function valueIn(
  request: ModbusRequest,
  value: RegisterConfig,
  data: Buffer,
): number | string | boolean {
  const at = value.address - request.address;
  if (isBits(value.table)) return ((data[at >> 3]! >> (at & 7)) & 1) === 1;
  const words = Buffer.from(data.subarray(at * 2, (at + REGISTERS[value.as]) * 2));
  // A register's own bytes are always big-endian; the order of registers is the maker's choice.
  if (value.wordOrder === "little") words.swap16().reverse();
  const number = READ[value.as](words);
  if (typeof number === "string" || (value.scale === 1 && value.offset === 0)) return number;
  return Number((number * value.scale + value.offset).toPrecision(12));
}

const READ: Readonly<Record<RegisterConfig["as"], (bytes: Buffer) => number | string>> = {
  u16: (bytes) => bytes.readUInt16BE(),
  i16: (bytes) => bytes.readInt16BE(),
  u32: (bytes) => bytes.readUInt32BE(),
  i32: (bytes) => bytes.readInt32BE(),
  f32: (bytes) => Number(bytes.readFloatBE().toPrecision(8)),
  u64: (bytes) => exact(bytes.readBigUInt64BE()),
  i64: (bytes) => exact(bytes.readBigInt64BE()),
  f64: (bytes) => bytes.readDoubleBE(),
};
