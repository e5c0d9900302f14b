/** The CRC-16 variants that serial protocols use, by the names of the CRC catalogue. */

export type Crc16 = "ccitt-false" | "xmodem" | "x25" | "modbus";

interface Variant {
  /** The polynomial, bit-reversed where `reflected`. */
  readonly polynomial: number;
  readonly initial: number;
  readonly reflected: boolean;
  readonly final: number;
}

const VARIANTS: Readonly<Record<Crc16, Variant>> = {
  "ccitt-false": { polynomial: 0x1021, initial: 0xffff, reflected: false, final: 0 },
  xmodem: { polynomial: 0x1021, initial: 0, reflected: false, final: 0 },
  x25: { polynomial: 0x8408, initial: 0xffff, reflected: true, final: 0xffff },
  modbus: { polynomial: 0xa001, initial: 0xffff, reflected: true, final: 0 },
};

/** Bit by bit: serial lines are slow, and a table of each variant would cost memory. */
export function crc16(variant: Crc16, bytes: Uint8Array): number {
  const { polynomial, initial, reflected, final } = VARIANTS[variant];
  let crc = initial;
  for (const byte of bytes) {
    crc ^= reflected ? byte : byte << 8;
    for (let bit = 0; bit < 8; bit++) {
      if (reflected) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
      else crc = crc & 0x8000 ? ((crc << 1) ^ polynomial) & 0xffff : (crc << 1) & 0xffff;
    }
  }
  return crc ^ final;
}
