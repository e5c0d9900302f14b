/** Memory that begins at a page, as direct reads and writes of files need it; no Buffer promises that. */

const WASM_PAGE_BYTES = 65_536;

/** The part of WebAssembly's JavaScript interface that is used; the compiler's own types of it come with a browser's only. */
interface WebAssemblyApi {
  readonly Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer };
}

/**
 * Zeros, never moved and never given back: for a few of them, made once. Only what is used of it takes memory.
 * @returns undefined where this Node has no WebAssembly, as with --jitless
 */
export function alignedMemory(bytes: number): Buffer | undefined {
  const { WebAssembly: api } = globalThis as unknown as { readonly WebAssembly?: WebAssemblyApi };
  if (api === undefined) return undefined;
  // A memory of WebAssembly is mapped by itself, so it begins at a page of the processor's.
  const { buffer } = new api.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) });
  return Buffer.from(buffer, 0, bytes);
}
