/** What AWS counts and bills by account. This gateway has no account-wide limit and bills nothing. */
import { AwsError } from "../../aws-error.ts";
import type { Operation } from "../operation.ts";
import { checkShape, type Shape } from "../shape.ts";

/** The greatest number that the API can say: shards are limited by stream, not by account. */
const NO_LIMIT = 1_000_000;

export const describeLimits: Operation = async (context, body) => {
  checkShape(body, {});
  let openShards = 0;
  let onDemand = 0;
  for (const stream of context.account.allSettings()) {
    openShards += stream.shards;
    if (stream.mode === "on-demand") onDemand++;
  }
  return {
    OnDemandStreamCount: onDemand,
    OnDemandStreamCountLimit: NO_LIMIT,
    OpenShardCount: openShards,
    ShardLimit: NO_LIMIT,
  };
};

export const describeAccountSettings: Operation = async (_context, body) => {
  checkShape(body, {});
  return { MinimumThroughputBillingCommitment: { Status: "DISABLED" } };
};

const updateShape = {
  MinimumThroughputBillingCommitment: {
    type: "structure",
    required: true,
    members: { Status: { type: "string", required: true, oneOf: ["DISABLED", "ENABLED"] } },
  },
} as const satisfies Shape;

/** What is asked for is either so already, or refused: nothing is pretended. */
export const updateAccountSettings: Operation = async (_context, body) => {
  const input = checkShape(body, updateShape);
  if (input.MinimumThroughputBillingCommitment.Status === "ENABLED") {
    throw new AwsError(
      "ValidationException",
      "MinimumThroughputBillingCommitment cannot be enabled: this gateway bills nothing.",
    );
  }
  return { MinimumThroughputBillingCommitment: { Status: "DISABLED" } };
};
