/** Memory that begins at a page, as direct reads and writes of files need it; no Buffer promises that. */
import { startWasm } from "./wasm-assembly.ts";

/**
 * Zeros, never moved and never given back: for a few of them, made once. Only what is used of it takes memory.
 * @returns undefined where this Node has no WebAssembly, as with --jitless
 */
export function alignedMemory(bytes: number): Buffer | undefined {
  // A memory of WebAssembly is mapped by itself, so it begins at a page of the processor's.
  const module = startWasm(bytes, {});
  return module && Buffer.from(module.memory, 0, bytes);
}
