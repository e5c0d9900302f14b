/** Where a list goes on: sealed, of one kind of list each, and good for five minutes. */
import { AwsError, invalidArgument } from "../../aws-error.ts";
import { type KinesisContext, nowMs } from "../operation.ts";
import { TOKEN_LIFE_MS } from "../sealed-token.ts";

export const nextTokenField = { type: "string", minLength: 1, maxLength: 1_048_576 } as const;

type ListKind = "streams" | "shards" | "consumers";

export function sealNextToken(
  context: KinesisContext,
  kind: ListKind,
  content: ReadonlyArray<string | number | null>,
): string {
  return context.nextTokens.seal([kind, ...content], nowMs(context.clock));
}

/** @throws AwsError InvalidArgumentException, ExpiredNextTokenException */
export function openNextToken<T extends Array<string | number | null>>(
  context: KinesisContext,
  kind: ListKind,
  text: string,
): T {
  const token = context.nextTokens.open(text);
  const [sealedKind, ...content] = (token?.content ?? []) as Array<string | number | null>;
  if (token === undefined || sealedKind !== kind) throw invalidArgument("NextToken is invalid.");
  if (nowMs(context.clock) - token.issuedMs > TOKEN_LIFE_MS) {
    throw new AwsError("ExpiredNextTokenException", "NextToken has expired: it lives for 300 seconds.");
  }
  return content as T;
}
