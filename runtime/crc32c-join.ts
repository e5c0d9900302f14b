/**
 * The checksum of bytes that stand one behind the other, from the checksums of each: a CRC is a remainder
 * of polynomials over GF(2), so the first part's is that of its bytes multiplied by a power of x, with as
 * many zero bits behind it as the second part has. Costs the same however many bytes they are.
 * `crc32c` of the bytes themselves is the plain way. Way and bit order as in zlib's crc32_combine.
 */

const POLYNOMIAL = 0x82f63b78;
/** x to the power of 0: in a CRC's order of bits, the highest bit is the lowest power. */
const ONE = 0x8000_0000 | 0;
/** Of each of the four bytes of a length, what a message is multiplied by: x^8, to the power of the byte and its place. */
const powers: readonly Int32Array[] = makePowers();

/** @returns the checksum of `first` and `second` together. @param secondBytes at most 2^32 - 1 */
export function joinCrc32c(first: number, second: number, secondBytes: number): number {
  return (multiply(first, powerOf(secondBytes)) ^ second) >>> 0;
}

/** Lengths come again: of a frame, each run is as long as the one before. */
let lastBytes = 0;
let lastPower = ONE;

function powerOf(bytes: number): number {
  if (bytes === lastBytes) return lastPower;
  let power = powers[0]![bytes & 0xff]!;
  for (let place = 1, rest = bytes >>> 8; rest > 0; place++, rest >>>= 8) {
    if ((rest & 0xff) !== 0) power = multiply(power, powers[place]![rest & 0xff]!);
  }
  lastBytes = bytes;
  lastPower = power;
  return power;
}

/** The product of two remainders. Without branches, which a processor could not foresee. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (let bit = 0; bit < 32; bit++) {
    product ^= b & (a >> 31);
    a <<= 1;
    b = (b >>> 1) ^ (POLYNOMIAL & -(b & 1));
  }
  return product;
}

function makePowers(): Int32Array[] {
  const tables: Int32Array[] = [];
  // One zero byte: x^8.
  let step = ONE >>> 8;
  for (let place = 0; place < 4; place++) {
    const table = new Int32Array(256);
    table[0] = ONE;
    for (let count = 1; count < 256; count++) table[count] = multiply(table[count - 1]!, step);
    tables.push(table);
    step = multiply(table[255]!, step);
  }
  return tables;
}
