/**
 * A stretch of the log that was looked at place by place, without a gap. What stands in it tells of most messages
 * whether they count (counting.ts says when one does), so that the cluster need not be asked.
 */
import { expectedOf, type StoredMessage } from "../cluster/stored-message.ts";

/** Subjects that are remembered. */
const MAX_SUBJECTS = 4_096;

export class Walk {
  #from: number;
  #next: number;
  /** Subject → sequence of its last message in the stretch, counting or not. */
  readonly #last = new Map<string, number>();

  /** @param firstSequence of what is kept: at a stretch that begins there nothing stands before it */
  constructor(next: number, firstSequence: number) {
    this.#from = next <= firstSequence ? 0 : next;
    this.#next = next;
  }

  /** The place that is looked at next. */
  get next(): number {
    return this.#next;
  }

  /** The next place is empty. */
  skip(): void {
    this.#next++;
  }

  /** Whether the message at the next place counts; undefined where that depends on what stands before the stretch. */
  look(message: StoredMessage): boolean | undefined {
    const { sequence, subject } = message;
    const expected = expectedOf(message);
    const last = this.#last.get(subject);
    if (last === undefined && this.#last.size === MAX_SUBJECTS) {
      this.#last.clear();
      this.#from = sequence;
    }
    this.#last.set(subject, sequence);
    this.#next = sequence + 1;
    if (expected >= sequence) return false;
    if (last !== undefined) return last <= expected;
    return expected + 1 >= this.#from ? true : undefined;
  }
}
