/** Bits of an H.264 or H.265 parameter set: Exp-Golomb codes behind emulation prevention (ITU-T H.264 §7.3.1, §9.1). */
import { HeadwaterError } from "../../../runtime/errors.ts";

/** A parameter set that ends too early or says what cannot be. */
export class MalformedParameterSetError extends HeadwaterError {
  constructor(reason: string) {
    super("PARAMETER_SET_MALFORMED", {
      message: `parameter set: ${reason}`,
      hint: "the camera sends a stream that no decoder could open",
    });
  }
}

export class BitReader {
  readonly #bytes: Buffer;
  #bit = 0;

  /** @param nal a whole NAL unit; its header bytes are part of what is read. */
  constructor(nal: Uint8Array) {
    this.#bytes = withoutEmulationPrevention(nal);
  }

  bits(count: number): number {
    if (this.#bit + count > this.#bytes.length * 8) throw new MalformedParameterSetError("it ends too early");
    let value = 0;
    for (let i = 0; i < count; i++, this.#bit++) {
      value = value * 2 + ((this.#bytes[this.#bit >> 3]! >> (7 - (this.#bit & 7))) & 1);
    }
    return value;
  }

  flag(): boolean {
    return this.bits(1) === 1;
  }

  skip(count: number): void {
    for (let left = count; left > 0; left -= 32) this.bits(Math.min(32, left));
  }

  /** ue(v), at most 32 bits. */
  unsigned(): number {
    let zeros = 0;
    while (!this.flag()) {
      if (++zeros > 32) throw new MalformedParameterSetError("a number of more than 32 bits");
    }
    return 2 ** zeros - 1 + this.bits(zeros);
  }

  /** se(v). */
  signed(): number {
    const code = this.unsigned();
    return code % 2 === 1 ? (code + 1) / 2 : -code / 2;
  }
}

/** 00 00 03 stands for 00 00 (ITU-T H.264 §7.4.1). */
function withoutEmulationPrevention(nal: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(nal.length);
  let length = 0;
  let zeros = 0;
  for (const byte of nal) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    zeros = byte === 0 ? zeros + 1 : 0;
    out[length++] = byte;
  }
  return out.subarray(0, length);
}
