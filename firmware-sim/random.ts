/**
 * Randomness without state: the value depends only on what it is asked for, so message n of a sensor
 * is the same in every run with the same seed, in whatever order the messages are made.
 */

/** 32 well mixed bits of a seed, a name and a number (FNV-1a, then the finaliser of MurmurHash3). */
export function mixedBits(seed: number, name: string, n: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (n >>> 0), 0x85ebca6b);
  hash = Math.imul(hash ^ Math.floor(n / 0x1_0000_0000) ^ (hash >>> 15), 0xc2b2ae35);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** In [0, 1). */
export function fraction(seed: number, name: string, n: number): number {
  return mixedBits(seed, name, n) / 0x1_0000_0000;
}

/** In [0, limit), whole. */
export function below(limit: number, seed: number, name: string, n: number): number {
  return Math.floor(fraction(seed, name, n) * limit);
}

/** A smooth wander in [-1, 1] with a bend about every `period` steps (value noise, cosine between lattice points). */
export function wander(seed: number, name: string, n: number, period: number): number {
  const place = n / period;
  const cell = Math.floor(place);
  const blend = (1 - Math.cos((place - cell) * Math.PI)) / 2;
  const from = fraction(seed, name, cell);
  const to = fraction(seed, name, cell + 1);
  return (from + (to - from) * blend) * 2 - 1;
}
