/**
 * Bodies for every operation of the API, made from what the SDK knows of their members: each may be
 * missing, as it should be, or anything at all. That a member is deep in the body is no protection.
 */
import * as sdk from "@aws-sdk/client-kinesis";
import fc from "fast-check";
import { Timestamp } from "../../../../gateway/api/kinesis/wire/codec.ts";

/** The operations that the SDK knows, sorted. */
export const operationNames: readonly string[] = Object.keys(sdk)
  .filter((name) => /^[A-Z]\w+Command$/.test(name))
  .map((name) => name.slice(0, -"Command".length))
  .sort();

/** Values that mean something to the gateway under test, by the name of a member. */
export type Meaningful = Readonly<Record<string, readonly unknown[]>>;

/** Smithy's schemas as the SDK ships them: a number, or [kind, namespace, name, traits, …]. */
type Schema = number | readonly unknown[] | (() => Schema);

const BLOB = 21;
const LIST_OF = 64;
const MAP_OF = 128;
const LIST = 1;
const STRUCTURE = 3;
const INTEGER = 1;
const BOOLEAN = 2;
const TIMESTAMP = 4;

const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    false,
    0,
    -1,
    1.5,
    1e300,
    -0,
    2 ** 53,
    "",
    "0",
    "null",
    [],
    {},
    [[]],
    [null],
  ),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.bigInt({ min: 0n, max: 2n ** 200n }).map(String),
  fc.constantFrom("constructor", "__proto__", "a".repeat(5_000), "\u0000", "\ud800", "..", "%s", "$&"),
  fc.double({ noNaN: true }),
  fc.jsonValue({ maxDepth: 3 }),
  // Deeper than any request, but no matter for a parser that counts.
  fc.integer({ min: 1, max: 200 }).map((depth) => {
    let value: unknown = 1;
    for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
    return value;
  }),
);

/** The body of a call of the operation. */
export function oddInput(operation: string, meaningful: Meaningful): fc.Arbitrary<Record<string, unknown>> {
  const schema = (sdk as unknown as Record<string, Schema>)[`${operation}$`] as readonly unknown[];
  // [9, namespace, name, traits, () => input, () => output]
  return structure(resolve(schema[4] as Schema) as readonly unknown[], meaningful);
}

function resolve(schema: Schema): Schema {
  return typeof schema === "function" ? resolve(schema()) : schema;
}

function structure(
  schema: readonly unknown[],
  meaningful: Meaningful,
): fc.Arbitrary<Record<string, unknown>> {
  if (schema[0] !== STRUCTURE) return fc.constant({});
  const names = schema[4] as readonly string[];
  const kinds = schema[5] as readonly Schema[];
  const members: Record<string, fc.Arbitrary<unknown>> = {};
  names.forEach((name, i) => {
    const right = rightValue(kinds[i]!, name, meaningful);
    // Neither JSON nor our CBOR sends what is undefined.
    members[name] = fc.oneof(
      { weight: 10, arbitrary: right },
      { weight: 1, arbitrary: odd },
      { weight: 4, arbitrary: fc.constant(undefined) },
    );
  });
  return fc
    .tuple(fc.record(members), fc.dictionary(fc.string({ maxLength: 6 }), odd, { maxKeys: 1 }))
    .map(([known, unknown]) => ({ ...unknown, ...known }));
}

function rightValue(given: Schema, name: string, meaningful: Meaningful): fc.Arbitrary<unknown> {
  const schema = resolve(given);
  const known = meaningful[name];
  if (known !== undefined) return fc.constantFrom(...known);
  if (typeof schema === "object") {
    const inner = schema as readonly unknown[];
    if (inner[0] === LIST) return fc.array(rightValue(inner[4] as Schema, "", meaningful), { maxLength: 3 });
    return structure(inner, meaningful);
  }
  if (schema === BLOB) {
    return fc.uint8Array({ maxLength: 60 }).map(blob);
  }
  const text = fc.string({ maxLength: 12 });
  if (typeof schema === "number" && (schema & MAP_OF) !== 0) return fc.dictionary(text, text, { maxKeys: 3 });
  if (typeof schema === "number" && (schema & LIST_OF) !== 0) return fc.array(text, { maxLength: 3 });
  if (schema === INTEGER) return fc.integer({ min: -1, max: 200 });
  if (schema === BOOLEAN) return fc.boolean();
  if (schema === TIMESTAMP) {
    return fc
      .oneof(fc.integer({ min: -5, max: 5 }), fc.double({ noNaN: true, min: -1e14, max: 1e17 }))
      .map((ms) => new Timestamp(Math.abs(ms) <= 5 ? Date.now() + ms * 1_000 : ms));
  }
  return text;
}

/** Bytes in CBOR, base64 in JSON. */
function blob(bytes: Uint8Array): Buffer {
  return Object.assign(Buffer.from(bytes), {
    toJSON(this: Buffer) {
      return this.toString("base64");
    },
  }) as unknown as Buffer;
}
