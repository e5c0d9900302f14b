/** How AWS repeats, in its refusals, what was wrong; at a length that a hostile value cannot choose. */

/** How much of a hostile value is repeated in a message. */
const MAX_SHOWN_CHARACTERS = 1_024;

export function described(value: unknown): string {
  if (value === undefined) return "null";
  if (Buffer.isBuffer(value))
    return `'java.nio.HeapByteBuffer[pos=0 lim=${value.length} cap=${value.length}]'`;
  if (Array.isArray(value)) {
    if (value.some((item) => typeof item === "object")) return `'[${value.length} members]'`;
    // More than could be shown need not be put together.
    const texts = value.slice(0, MAX_SHOWN_CHARACTERS).map((item) => item ?? "null");
    return `'${shown(`[${texts.join(", ")}]`)}'`;
  }
  if (value instanceof Map) {
    return `'${shown(`{${Array.from(value, ([key, item]) => `${key}=${String(item ?? null)}`).join(", ")}}`)}'`;
  }
  return `'${shown(String(value))}'`;
}

export function shown(text: string): string {
  return text.length <= MAX_SHOWN_CHARACTERS ? text : `${text.slice(0, MAX_SHOWN_CHARACTERS)}…`;
}
