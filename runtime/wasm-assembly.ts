/**
 * Small WebAssembly modules that are assembled while the program loads: the loops over bytes of which
 * JavaScript has no instructions. Codes are those of the WebAssembly core specification, §5 (binary
 * format). Who writes one keeps the plain way beside it, for machines that refuse the module.
 */

export const I32 = 0x7f;
export const F64 = 0x7c;
export const V128 = 0x7b;

export interface WasmFunction {
  /** All are i32. */
  readonly parameters: number;
  readonly returns: boolean;
  /** Types of the locals behind the parameters. */
  readonly locals: readonly number[];
  /** Without the closing `end`. */
  readonly code: readonly number[];
}

export interface WasmExports<Name extends string, Memory extends ArrayBufferLike = ArrayBuffer> {
  readonly memory: Memory;
  readonly functions: Readonly<Record<Name, (...numbers: number[]) => number>>;
}

/** The part of WebAssembly's JavaScript interface that is used; the compiler's own types of it come with a browser's only. */
interface WebAssemblyApi {
  validate(bytes: Uint8Array): boolean;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Record<string, unknown> };
}

const PAGE_BYTES = 65_536;

/**
 * A running module of these functions, over a memory of its own that never grows.
 * @returns undefined where there is no WebAssembly, or not what the code needs of it
 */
export function startWasm<Name extends string>(
  memoryBytes: number,
  functions: Readonly<Record<Name, WasmFunction>>,
): WasmExports<Name> | undefined {
  return start(assembleWasm(memoryBytes, functions));
}

/** The same over memory that other threads may see (threads proposal: limits with the flag `shared`). */
export function startSharedWasm<Name extends string>(
  memoryBytes: number,
  functions: Readonly<Record<Name, WasmFunction>>,
): WasmExports<Name, SharedArrayBuffer> | undefined {
  return start(assembleWasm(memoryBytes, functions, true));
}

function start<Name extends string, Memory extends ArrayBufferLike>(
  bytes: Uint8Array,
): WasmExports<Name, Memory> | undefined {
  const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly?: WebAssemblyApi };
  if (api?.validate(bytes) !== true) return undefined;
  const { exports } = new api.Instance(new api.Module(bytes));
  return {
    memory: (exports.memory as { readonly buffer: Memory }).buffer,
    functions: exports as WasmExports<Name>["functions"],
  };
}

export function assembleWasm(
  memoryBytes: number,
  functions: Readonly<Record<string, WasmFunction>>,
  isShared = false,
): Uint8Array {
  const list = Object.values<WasmFunction>(functions);
  const name = (text: string): number[] => [text.length, ...Buffer.from(text)];
  const counted = (items: readonly number[][]): number[] => [...unsigned(items.length), ...items.flat()];
  const section = (id: number, body: number[]): number[] => [id, ...unsigned(body.length), ...body];
  const types = list.map(({ parameters, returns }) => [
    ...[0x60, parameters, ...new Array<number>(parameters).fill(I32)],
    ...(returns ? [1, I32] : [0]),
  ]);
  const names = Object.keys(functions).map((key, i) => [...name(key), 0, i]);
  const bodies = list.map(({ locals, code }) => {
    const body = [...counted(locals.map((type) => [1, type])), ...code, 0x0b];
    return [...unsigned(body.length), ...body];
  });
  const pages = unsigned(Math.ceil(memoryBytes / PAGE_BYTES));
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, counted(types)),
    ...section(3, counted(list.map((_, i) => [i]))),
    // At least so many pages; of shared memory at most, too.
    ...section(5, isShared ? [1, 3, ...pages, ...pages] : [1, 0, ...pages]),
    ...section(7, counted([[...name("memory"), 2, 0], ...names])),
    ...section(10, counted(bodies)),
  ]);
}

/** LEB128, §5.2.2. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
    if (rest === 0) return bytes;
  }
}

export function signed(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = rest & 0x7f;
    rest >>= 7;
    const isLast = rest === ((low & 0x40) === 0 ? 0 : -1);
    bytes.push(isLast ? low : low | 0x80);
    if (isLast) return bytes;
  }
}
