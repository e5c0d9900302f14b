/**
 * Tags, in both families: by the name of a stream (AddTagsToStream …), and by the ARN of a stream or
 * of a registered consumer (TagResource …).
 */
import { ReaderNotFoundError, type Tags } from "../../../streams/streams.ts";
import { AwsError, invalidArgument } from "../../aws-error.ts";
import { namedStreamField, resourceArnField, streamArnField } from "../account.ts";
import { consumerNotFound, findConsumer } from "../consumer-arn.ts";
import type { KinesisContext, Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";

export const MAX_TAGS = 50;
/** Unicode letters, digits and white space, and these signs. `%` is told apart below, as AWS does. */
const TAG_CHARACTERS = /^[\p{L}\p{M}\p{Z}\p{N}_.:/=+\-@%]*$/u;

const tagKey = { type: "string", minLength: 1, maxLength: 128 } as const;
const tagValue = { type: "string", minLength: 0, maxLength: 256 } as const;
export const tagsField = { type: "map", keys: tagKey, of: tagValue, minLength: 1, maxLength: 200 } as const;
const tagKeysField = {
  type: "list",
  required: true,
  of: tagKey,
  minLength: 1,
  maxLength: MAX_TAGS,
} as const;

/**
 * The tags after some were added.
 * @param where such as `stream s under account 000000000000`
 * @throws AwsError InvalidArgumentException
 */
export function withTags(before: Tags, added: ReadonlyMap<string, string>, where: string): Tags {
  checkCharacters([...added.keys(), ...added.values()], `add tags to ${where}`);
  for (const key of added.keys()) {
    if (/^aws:/i.test(key)) throw invalidArgument("Tag keys that begin with aws: are reserved.");
  }
  // fromEntries makes `__proto__` an own member like any other.
  const after = Object.fromEntries([...Object.entries(before), ...added]);
  if (Object.keys(after).length > MAX_TAGS) {
    throw invalidArgument(
      `Failed to add tags to ${where} because a given resource cannot have more than ${MAX_TAGS} tags associated with it.`,
    );
  }
  return after;
}

function withoutTags(before: Tags, keys: readonly string[], where: string): Tags {
  checkCharacters(keys, `remove tags from ${where}`);
  return Object.fromEntries(Object.entries(before).filter(([key]) => !keys.includes(key)));
}

function checkCharacters(texts: readonly string[], doing: string): void {
  if (!texts.every((text) => TAG_CHARACTERS.test(text))) {
    throw invalidArgument(
      "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / = + - % @ :.",
    );
  }
  if (texts.some((text) => text.includes("%"))) {
    throw invalidArgument(
      `Failed to ${doing} because some tags contained illegal characters. The allowed characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@',':'.`,
    );
  }
}

function listed(tags: Tags): { Key: string; Value: string }[] {
  return Object.keys(tags)
    .sort()
    .map((key) => ({ Key: key, Value: tags[key]! }));
}

function changeStreamTags(
  context: KinesisContext,
  stream: string,
  change: (before: Tags, where: string) => Tags,
): Promise<void> {
  return context.turns.run(stream, async () => {
    const where = `stream ${stream} under account ${context.account.accountId}`;
    // Made from those that are there when it is written: another gateway may have changed them a moment ago.
    const tags = (before: Tags): Tags => change(before, where);
    await context.account.found(stream, context.streams.updateStream(stream, { tags }));
  });
}

const addShape = {
  Tags: { ...tagsField, required: true },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

export const addTagsToStream: Operation = async (context, body) => {
  const input = checkShape(body, addShape);
  const stream = context.account.streamNameOf(input);
  await changeStreamTags(context, stream, (before, where) => withTags(before, input.Tags, where));
  return undefined;
};

const removeShape = {
  TagKeys: tagKeysField,
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

export const removeTagsFromStream: Operation = async (context, body) => {
  const input = checkShape(body, removeShape);
  const stream = context.account.streamNameOf(input);
  await changeStreamTags(context, stream, (before, where) => withoutTags(before, input.TagKeys, where));
  return undefined;
};

const listShape = {
  ExclusiveStartTagKey: tagKey,
  Limit: { type: "integer", min: 1, max: MAX_TAGS },
  StreamARN: streamArnField,
  StreamName: namedStreamField,
} as const satisfies Shape;

export const listTagsForStream: Operation = async (context, body) => {
  const input = checkShape(body, listShape);
  const stream = context.account.settings(context.account.streamNameOf(input));
  const start = input.ExclusiveStartTagKey;
  const after = listed(stream.tags).filter(({ Key }) => start === undefined || Key > start);
  const page = after.slice(0, input.Limit ?? MAX_TAGS);
  return { Tags: page, HasMoreTags: page.length < after.length };
};

const tagShape = {
  ResourceARN: { ...resourceArnField, required: true },
  Tags: { ...tagsField, required: true },
} as const satisfies Shape;

export const tagResource: Operation = async (context, body) => {
  const { ResourceARN: arn, Tags: tags } = checkShape(body, tagShape);
  await changeTags(context, arn, (before, where) => withTags(before, tags, where));
  return undefined;
};

const untagShape = {
  ResourceARN: { ...resourceArnField, required: true },
  TagKeys: tagKeysField,
} as const satisfies Shape;

export const untagResource: Operation = async (context, body) => {
  const { ResourceARN: arn, TagKeys: keys } = checkShape(body, untagShape);
  await changeTags(context, arn, (before, where) => withoutTags(before, keys, where));
  return undefined;
};

async function changeTags(
  context: KinesisContext,
  arn: string,
  change: (before: Tags, where: string) => Tags,
): Promise<void> {
  const { account, streams } = context;
  if (!isConsumerArn(arn)) {
    return await changeStreamTags(context, account.streamNameOf({ StreamARN: arn }), change);
  }
  const { stream } = findConsumer(account, streams, arn);
  await context.turns.run(stream, async () => {
    const { reader } = findConsumer(account, streams, arn);
    const where = `consumer ${reader.name} of stream ${stream}`;
    const tags = (before: Tags): Tags => change(before, where);
    try {
      await account.found(stream, streams.updateReader(stream, reader.name, tags));
    } catch (error) {
      // It may have been deregistered since it was found.
      throw error instanceof ReaderNotFoundError ? consumerNotFound(account, arn) : error;
    }
  });
}

function isConsumerArn(arn: string): boolean {
  return arn.includes("/consumer/");
}

const listResourceShape = {
  ResourceARN: { ...resourceArnField, required: true },
} as const satisfies Shape;

export const listTagsForResource: Operation = async (context, body) => {
  const { ResourceARN: arn } = checkShape(body, listResourceShape);
  const { account, streams } = context;
  const { tags } = isConsumerArn(arn)
    ? findConsumer(account, streams, arn).reader
    : account.settings(account.streamNameOf({ StreamARN: arn }));
  return { Tags: listed(tags) };
};

/** @throws AwsError for what CreateStream or RegisterStreamConsumer may not be given */
export function newTags(added: ReadonlyMap<string, string> | undefined, where: string): Tags {
  if (added !== undefined && added.size > MAX_TAGS) {
    throw new AwsError(
      "InvalidArgumentException",
      `A resource cannot have more than ${MAX_TAGS} tags; ${added.size} were given.`,
    );
  }
  return added === undefined ? {} : withTags({}, added, where);
}
