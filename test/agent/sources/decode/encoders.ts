/** What boards do before they write: the other direction of the decoders under test. */

/** Cheshire and Baker's encoding, without the zero that ends a frame. */
export function cobsEncode(bytes: Uint8Array): Buffer {
  const out: number[] = [];
  let code = 0;
  const begin = (): void => {
    code = out.length;
    out.push(1);
  };
  begin();
  for (const byte of bytes) {
    if (byte !== 0) {
      out.push(byte);
      out[code]!++;
    }
    if (byte === 0 || out[code] === 0xff) begin();
  }
  return Buffer.from(out);
}

/** @param body between `$` and `*` */
export function nmeaSentence(body: string): string {
  let sum = 0;
  for (let i = 0; i < body.length; i++) sum ^= body.charCodeAt(i);
  return `$${body}*${sum.toString(16).toUpperCase().padStart(2, "0")}`;
}
