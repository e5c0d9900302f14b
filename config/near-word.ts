/** Which word was meant by one that is not known. */

/**
 * The word of `words` that is most like `word`: a slip or two of the keyboard away, in other capitals, or
 * longer or shorter at its end. Undefined where none is near enough to be worth a question.
 */
export function nearWord(word: string, words: readonly string[]): string | undefined {
  // Long ones are no slips; and each costs the product of two lengths.
  if (word.length > 40) return undefined;
  const written = word.toLowerCase();
  let nearest: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of words) {
    const known = candidate.toLowerCase();
    const shorter = Math.min(written.length, known.length);
    const isBegun = shorter >= 3 && written.slice(0, shorter) === known.slice(0, shorter);
    const slips = isBegun
      ? Math.min(1, Math.abs(written.length - known.length))
      : slipsBetween(written, known);
    if (slips >= least || slips > Math.max(1, Math.floor(shorter / 3)) || slips >= shorter) continue;
    nearest = candidate;
    least = slips;
  }
  return nearest;
}

/** Letters that are missing, too many, others, or swapped with their neighbour. */
function slipsBetween(one: string, other: string): number {
  let before: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const isSame = one[i - 1] === other[j - 1];
      let slips = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (isSame ? 0 : 1));
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1])
        slips = Math.min(slips, before[j - 2]! + 1);
      row.push(slips);
    }
    [before, last] = [last, row];
  }
  return last[other.length]!;
}
