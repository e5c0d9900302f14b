/**
 * How much structure a body of JSON may hold, found out before anything is allocated for it: 16 MiB of
 * `[` or of `{},` would take a gibibyte and seconds to parse, in which nobody else is served.
 */

/** What begins or divides values; in base64 there is none. */
const SIGNS = [",", "[", "{"].map((sign) => sign.charCodeAt(0));
/** A PutRecords of 500 has 2,000, and 128,000 more if its partition keys are nothing but commas. */
const MAX_SIGNS = 200_000;

export function isTooBulky(body: Buffer): boolean {
  if (body.length <= MAX_SIGNS) return false;
  let count = 0;
  for (const sign of SIGNS) {
    for (let at = body.indexOf(sign); at >= 0; at = body.indexOf(sign, at + 1)) {
      if (++count > MAX_SIGNS) return true;
    }
  }
  return false;
}
