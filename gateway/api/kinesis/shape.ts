/**
 * What a request must look like, as tables; and the check of a decoded body, of AWS JSON 1.1 or of
 * CBOR, against such a table. It happens in AWS's order and words: first every type (SerializationException), then
 * every constraint, of which up to ten are told at once (ValidationException).
 */
import { AwsError } from "../aws-error.ts";
import { described, shown } from "./told-values.ts";

const MAX_PROBLEMS = 10;
/**
 * AWS's patterns have several `.*`, so that to try one takes the square or the cube of a text's length. What
 * is longer than any field of theirs may be is told by its length alone.
 */
const MAX_TRIED_CHARACTERS = 2_048;

const MAX_INTEGER = 2 ** 31 - 1;
const MIN_INTEGER = -(2 ** 31);

interface Common {
  readonly required?: true;
  /** Required where the member of that name is missing. */
  readonly requiredWithout?: string;
}
export interface TextField extends Common {
  readonly type: "string";
  /** As AWS writes it, and tells it. */
  readonly pattern?: string;
  /** Takes what `pattern` takes, and is tried in its place where that would be too slow. */
  readonly quickPattern?: RegExp;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly oneOf?: readonly string[];
}
export interface NumberField extends Common {
  readonly type: "integer";
  readonly min?: number;
  readonly max?: number;
}
export interface BooleanField extends Common {
  readonly type: "boolean";
}
/** Seconds since 1970, with a fraction. */
export interface TimestampField extends Common {
  readonly type: "timestamp";
}
/** Base64 of bytes in JSON; in CBOR the bytes. */
export interface BlobField extends Common {
  readonly type: "blob";
  readonly maxLength?: number;
}
export interface ListField extends Common {
  readonly type: "list";
  readonly of: Field;
  readonly minLength?: number;
  readonly maxLength?: number;
}
export interface StructureField extends Common {
  readonly type: "structure";
  readonly members: Shape;
}
/** Text by text, such as tags. */
export interface MapField extends Common {
  readonly type: "map";
  readonly keys: TextField;
  readonly of: TextField;
  readonly minLength?: number;
  readonly maxLength?: number;
}
export type Field =
  | TextField
  | NumberField
  | BooleanField
  | TimestampField
  | BlobField
  | ListField
  | MapField
  | StructureField;
export type Shape = Readonly<Record<string, Field>>;

type Value<F> = F extends { type: "string" }
  ? string
  : F extends { type: "integer" } | { type: "timestamp" }
    ? number
    : F extends { type: "boolean" }
      ? boolean
      : F extends { type: "blob" }
        ? Buffer
        : F extends { type: "list"; of: infer Of }
          ? Value<Of>[]
          : F extends { type: "structure"; members: infer Members extends Shape }
            ? Input<Members>
            : F extends { type: "map" }
              ? ReadonlyMap<string, string>
              : never;

/** What a body of this shape is once it has been checked. Unknown members are left out, as AWS does. */
export type Input<S extends Shape> = {
  readonly [K in keyof S as S[K] extends { required: true } ? K : never]: Value<S[K]>;
} & {
  readonly [K in keyof S as S[K] extends { required: true } ? never : K]?: Value<S[K]>;
};

/** @throws AwsError SerializationException or ValidationException */
export function checkShape<const S extends Shape>(body: unknown, shape: S): Input<S> {
  const input = toStructure(body, shape);
  const problems: string[] = [];
  validateMembers(input, shape, "", problems);
  if (problems.length > 0) {
    const count = `${problems.length} validation error${problems.length > 1 ? "s" : ""}`;
    throw new AwsError("ValidationException", `${count} detected: ${problems.join("; ")}`);
  }
  return input as Input<S>;
}

function serialization(message: string): AwsError {
  return new AwsError("SerializationException", message);
}

const wrongStructure = "Start of structure or map found where not expected.";
const wrongList = "Start of list found where not expected";

function toStructure(value: unknown, shape: Shape): Record<string, unknown> {
  if (Array.isArray(value)) throw serialization(wrongList);
  if (typeof value !== "object" || value === null) throw serialization("Expected null");
  const out: Record<string, unknown> = {};
  for (const name of Object.keys(shape)) {
    // Own members only: a body may hold `__proto__` or lack what Object.prototype has.
    const member = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
    if (member !== undefined && member !== null) out[name] = toType(member, shape[name]!);
  }
  return out;
}

function toType(value: unknown, field: Field): unknown {
  // Only CBOR has bytes; they are an object to JavaScript, but a structure to nobody.
  if (Buffer.isBuffer(value)) {
    if (field.type === "blob") return value;
    throw serialization("A byte string was found where not expected.");
  }
  if (field.type === "list") {
    if (Array.isArray(value)) {
      // A null member stays, and is found by the constraints.
      return value.map((item: unknown) =>
        item === null || item === undefined ? undefined : toType(item, field.of),
      );
    }
    throw serialization(typeof value === "object" ? wrongStructure : "Expected list or null");
  }
  if (field.type === "structure") return toStructure(value, field.members);
  if (field.type === "map") return toMap(value, field);
  if (Array.isArray(value)) throw serialization(wrongList);
  if (typeof value === "object") throw serialization(wrongStructure);
  return toScalar(value, field);
}

function toMap(value: unknown, field: MapField): ReadonlyMap<string, unknown> {
  if (Array.isArray(value)) throw serialization(wrongList);
  if (typeof value !== "object" || value === null || Buffer.isBuffer(value)) {
    throw serialization("Expected map or null");
  }
  // A Map, because a key may be `__proto__`.
  const out = new Map<string, unknown>();
  for (const [key, item] of Object.entries(value)) {
    out.set(key, item === null || item === undefined ? undefined : toType(item, field.of));
  }
  return out;
}

const javaName = {
  string: "java.lang.String",
  number: "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
  boolean: "java.lang.Boolean",
} as const;
const awsName = {
  string: "an String",
  integer: "an Integer",
  boolean: "an Boolean",
  timestamp: "milliseconds since epoch",
  blob: "a Blob",
} as const;

function toScalar(value: unknown, field: Exclude<Field, ListField | MapField | StructureField>): unknown {
  const given = typeof value as "string" | "number" | "boolean";
  // CBOR has them (RFC 8949 §3.3), and JSON's 1e400 becomes one.
  if (given === "number" && !Number.isFinite(value)) throw serialization(`${value} is no number of AWS's.`);
  if (field.type === "blob" && given === "string") return toBlob(value as string);
  if (field.type === "string" && given === "string") return value;
  if (field.type === "boolean" && given === "boolean") return value;
  if (field.type === "integer" && given === "number") {
    return Math.max(MIN_INTEGER, Math.min(MAX_INTEGER, Math.floor(value as number)));
  }
  if (field.type === "timestamp" && given === "number") return value;
  const isText = field.type === "boolean" && given === "string";
  const from = isText ? `'${shown(String(value).toUpperCase())}'` : `class ${javaName[given]}`;
  throw serialization(`${from} can not be converted to ${awsName[field.type]}`);
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/** RFC 4648 §4, strictly: padded, and nothing in the bits that the padding leaves over. */
export function toBlob(text: string): Buffer {
  const refuse = (why: string): never => {
    throw serialization(`'${shown(text)}' can not be converted to a Blob: ${why}`);
  };
  if (text.length % 4 !== 0) {
    refuse(`Base64 encoded length is expected a multiple of 4 bytes but found: ${text.length}`);
  }
  if (!BASE64.test(text)) {
    const wrong = /[^A-Za-z0-9+/=]|=[^=]/.exec(text)?.[0] ?? "=";
    refuse(`Invalid Base64 character: '${wrong[0]}'`);
  }
  const bytes = Buffer.from(text, "base64");
  if (text.endsWith("=") && bytes.subarray(-(bytes.length % 3)).toString("base64") !== text.slice(-4)) {
    refuse("Invalid last non-pad Base64 character dectected");
  }
  return bytes;
}

function validateMembers(
  value: Readonly<Record<string, unknown>>,
  shape: Shape,
  parent: string,
  problems: string[],
): void {
  for (const name of Object.keys(shape)) {
    const field = shape[name]!;
    const { requiredWithout } = field;
    const isMissed = requiredWithout !== undefined && value[requiredWithout] === undefined;
    validate(
      value[name],
      isMissed ? { ...field, required: true } : field,
      `${parent}${name[0]!.toLowerCase()}${name.slice(1)}`,
      problems,
    );
  }
}

function validate(value: unknown, field: Field, path: string, problems: string[]): void {
  if (problems.length >= MAX_PROBLEMS) return;
  const fail = (constraint: string): void => {
    if (problems.length < MAX_PROBLEMS)
      problems.push(`Value ${described(value)} at '${path}' failed to satisfy constraint: ${constraint}`);
  };
  if (value === undefined) {
    if (field.required) fail("Member must not be null");
    return;
  }
  if (field.type === "string") validateText(value as string, field, fail);
  if (field.type === "integer") {
    const { min, max } = field;
    if (min !== undefined && !((value as number) >= min))
      fail(`Member must have value greater than or equal to ${min}`);
    if (max !== undefined && !((value as number) <= max))
      fail(`Member must have value less than or equal to ${max}`);
  }
  if (field.type === "blob" || field.type === "list") {
    validateLength((value as Buffer | unknown[]).length, field, fail);
  }
  if (field.type === "list") {
    const items = value as unknown[];
    // A list beyond its limit is told as such; its members are not looked at one by one.
    if (field.maxLength !== undefined && items.length > field.maxLength) return;
    if (field.of.type === "string") {
      const problem = firstProblem(items, field.of);
      if (problem !== undefined) fail(`Member must satisfy constraint: ${problem}`);
      return;
    }
    for (let i = 0; i < items.length; i++) {
      validate(items[i], { ...field.of, required: true }, `${path}.${i + 1}.member`, problems);
    }
  }
  if (field.type === "map") validateMap(value as ReadonlyMap<string, unknown>, field, fail);
  if (field.type === "structure") {
    validateMembers(value as Record<string, unknown>, field.members, `${path}.`, problems);
  }
}

/** AWS tells one constraint for all keys, and one for all values; see `firstProblem`. */
function validateMap(
  value: ReadonlyMap<string, unknown>,
  field: MapField,
  fail: (constraint: string) => void,
): void {
  validateLength(value.size, field, fail);
  if (field.maxLength !== undefined && value.size > field.maxLength) return;
  const keys = firstProblem(value.keys(), field.keys);
  if (keys !== undefined) fail(`Map keys must satisfy constraint: ${keys}`);
  const values = firstProblem(value.values(), field.of);
  if (values !== undefined) fail(`Map value must satisfy constraint: ${values}`);
}

/** Of the texts in a list or a map AWS tells all that must hold for them when it does not hold for one. */
function firstProblem(texts: Iterable<unknown>, of: TextField): string | undefined {
  for (const text of texts) {
    if (text === undefined) return "[Member must not be null]";
    let isBroken = false;
    validateText(text as string, of, () => {
      isBroken = true;
    });
    if (!isBroken) continue;
    const all: string[] = [];
    if (of.maxLength !== undefined) all.push(`Member must have length less than or equal to ${of.maxLength}`);
    if (of.minLength !== undefined)
      all.push(`Member must have length greater than or equal to ${of.minLength}`);
    if (of.pattern !== undefined) all.push(`Member must satisfy regular expression pattern: ${of.pattern}`);
    return `[${all.join(", ")}]`;
  }
  return undefined;
}

function validateText(value: string, field: TextField, fail: (constraint: string) => void): void {
  const { pattern, maxLength = Number.POSITIVE_INFINITY } = field;
  if (pattern !== undefined && value.length <= Math.max(maxLength, MAX_TRIED_CHARACTERS)) {
    if (!(field.quickPattern ?? patternOf(pattern)).test(value))
      fail(`Member must satisfy regular expression pattern: ${pattern}`);
  }
  validateLength(value.length, field, fail);
  if (field.oneOf !== undefined && !field.oneOf.includes(value))
    fail(`Member must satisfy enum value set: [${field.oneOf.join(", ")}]`);
}

function validateLength(
  length: number,
  field: { readonly minLength?: number; readonly maxLength?: number },
  fail: (constraint: string) => void,
): void {
  if (field.minLength !== undefined && length < field.minLength)
    fail(`Member must have length greater than or equal to ${field.minLength}`);
  if (field.maxLength !== undefined && length > field.maxLength)
    fail(`Member must have length less than or equal to ${field.maxLength}`);
}

/** Compiled once each; they all come from our own tables. */
const patterns = new Map<string, RegExp>();

function patternOf(pattern: string): RegExp {
  let compiled = patterns.get(pattern);
  if (compiled === undefined) {
    compiled = new RegExp(`^(?:${pattern})$`);
    patterns.set(pattern, compiled);
  }
  return compiled;
}
