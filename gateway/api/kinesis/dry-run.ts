/**
 * `DryRun` of the calls that read and write records: everything is checked, and nothing is done. What
 * would have succeeded is told by an error, as AWS does.
 */
import { AwsError } from "../aws-error.ts";
import type { BooleanField } from "./shape.ts";

export const dryRunField = { type: "boolean" } as const satisfies BooleanField;

/**
 * To be called when all is checked and nothing is done yet.
 * @throws AwsError DryRunOperationException
 */
export function endDryRun(dryRun: boolean | undefined): void {
  if (dryRun !== true) return;
  throw new AwsError(
    "DryRunOperationException",
    "The request would have succeeded; nothing was done, because DryRun is set.",
  );
}
