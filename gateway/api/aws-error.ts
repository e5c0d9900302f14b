/**
 * Refusals in AWS's own words: SDKs decide by `__type` whether to try again. Status 400 means that
 * the caller must change something, 500 that the same call may succeed later.
 */
import { HeadwaterError } from "../../runtime/errors.ts";

export class AwsError extends HeadwaterError {
  /** `__type` of the answer, such as ResourceNotFoundException. */
  readonly type: string;
  readonly status: number;

  constructor(type: string, message: string, status = 400, cause?: unknown) {
    super("AWS_ERROR", { message, cause, retryable: status >= 500 });
    this.type = type;
    this.status = status;
  }
}

export const AWS_JSON = "application/x-amz-json-1.1";

export function invalidArgument(message: string): AwsError {
  return new AwsError("InvalidArgumentException", message);
}

export function notFound(message: string): AwsError {
  return new AwsError("ResourceNotFoundException", message);
}
