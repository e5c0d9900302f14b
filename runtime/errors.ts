/** Errors that an operator can act on: a stable code, a message, a hint at the repair. */

export interface ErrorFacts {
  message: string;
  /** What to do about it, in one sentence. */
  hint?: string;
  /** True when the same call may succeed later without anybody's help. */
  retryable?: boolean;
  cause?: unknown;
}

export class HeadwaterError extends Error {
  readonly code: string;
  readonly hint: string | undefined;
  readonly retryable: boolean;

  constructor(code: string, facts: ErrorFacts) {
    super(facts.message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = facts.hint;
    this.retryable = facts.retryable ?? false;
  }
}

/** One line for a log or a terminal: `CODE: message (hint)`. Never holds a stack. */
export function describeError(error: unknown): string {
  if (error instanceof HeadwaterError) {
    return `${error.code}: ${error.message}${error.hint === undefined ? "" : ` (${error.hint})`}`;
  }
  return error instanceof Error ? error.message : String(error);
}

/** A broken invariant: a bug of ours, never a user's mistake. The process must not go on. */
export function invariant(holds: boolean, message: string): asserts holds {
  if (!holds) throw new Error(`broken invariant: ${message}`);
}
