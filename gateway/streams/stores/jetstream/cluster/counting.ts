/**
 * Which messages of a subject count. nats-server 2.9 looks at the expected sequence before it
 * proposes a message, so two that expect the same may both be stored. The order of the log decides:
 * a message counts when the one right before it on its subject is the one that it expected.
 */
import { expectedOf, ID_HEADER, type StoredMessage } from "./stored-message.ts";

/** What is kept of one subject. */
export interface SubjectLog {
  /** The message at this sequence. */
  get(sequence: number): Promise<StoredMessage | undefined>;
  /** The first one of the subject at this sequence or behind it. */
  from(sequence: number): Promise<StoredMessage | undefined>;
}

/** `elsewhere`: the cluster's log has another message at its place. */
export type Verdict = boolean | "elsewhere";

/** Undefined when neither it nor anything between it and what it expected is there. */
export async function counts(log: SubjectLog, message: StoredMessage): Promise<Verdict | undefined> {
  const expected = expectedOf(message);
  if (expected >= message.sequence) return false;
  const first = await log.from(expected + 1);
  if (first !== undefined && first.sequence <= message.sequence) return first.sequence === message.sequence;
  // A leader may pass over messages that are there: nats-server had such faults in its search by subject (its pull
  // request 5266 of 2024), and seen was one whose copy stood one place apart.
  const there = await log.get(message.sequence);
  if (there === undefined) return undefined;
  return there.header(ID_HEADER) === message.header(ID_HEADER) || "elsewhere";
}

/**
 * The last one that counts, up to `last`. Mostly that is `last` itself; else the stretch behind what
 * it expected is walked, then the stretch before that.
 */
export async function lastCounting(log: SubjectLog, last: StoredMessage): Promise<StoredMessage> {
  for (let end = last; ; ) {
    const expected = expectedOf(end);
    let before = expected;
    let first: StoredMessage | undefined;
    let found: StoredMessage | undefined;
    while (before < end.sequence) {
      const next = await log.from(before + 1);
      const at = next !== undefined && next.sequence < end.sequence ? next : end;
      first ??= at;
      if (expectedOf(at) === before) found = at;
      before = at.sequence;
    }
    if (found !== undefined) return found;
    const earlier = expected === 0 ? undefined : await log.get(expected);
    // Retention took what was before: the oldest that is kept stood right behind it.
    if (earlier === undefined || earlier.sequence >= end.sequence) return first ?? end;
    end = earlier;
  }
}
