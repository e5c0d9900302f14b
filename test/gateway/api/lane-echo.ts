/** A service of the lanes that says what it heard. */

import { UnreadAnswers } from "../../../gateway/api/answers/unread-answers.ts";
import { BodyBudget } from "../../../gateway/api/bodies/body-budget.ts";
import type { LaneAnswer, LaneCall, LaneService } from "../../../gateway/api/door/lane-service.ts";
import type { CallHead } from "../../../gateway/api/door/request-head.ts";
import type { Asker } from "../../../gateway/api/exchange.ts";
import type { HeadwaterError } from "../../../runtime/errors.ts";

export const BUDGET_BYTES = 1_000_000;
export const MAX_BODY_BYTES = 2_000_000;
export const UNREAD_BYTES = 20_000_000;

/** Answers each call with its target and body, at once or when the test says so. */
export class Echo implements LaneService {
  readonly budget = new BodyBudget(BUDGET_BYTES);
  readonly unread = new UnreadAnswers(UNREAD_BYTES);
  /** Of the next calls. */
  keyId = "AKIAEVERYTHING";
  readonly maxBodyBytes = MAX_BODY_BYTES;
  readonly heads: CallHead[] = [];
  readonly refused: string[] = [];
  /** Of the last call whose body came. */
  asker: Asker | undefined;
  /** While it is set, answers wait. */
  held: Array<() => void> | undefined;
  /** How much longer than they would be. */
  answerBytes = 0;

  begin(head: CallHead): LaneCall | undefined {
    if (head.target === "other") return undefined;
    this.heads.push(head);
    return {
      keepsBody: head.contentType === "kept",
      keyId: this.keyId,
      isProven: true,
      discard: () => {},
      run: (body, answer, asker) => {
        this.asker = asker;
        const text = `${head.target}=${body.toString("latin1")}${"!".repeat(this.answerBytes)}`;
        const tell = (): void => {
          if (answer(answerOf(200, head.target.startsWith("bytes") ? Buffer.from(text) : text))) return;
          answer(answerOf(503, "no room"));
        };
        if (this.held !== undefined) this.held.push(tell);
        else void Promise.resolve().then(tell);
      },
      refuse: (why: HeadwaterError, answer) => {
        this.refused.push(why.code);
        if (why.code !== "BODY_CUT_OFF") answer(answerOf(503, why.code));
      },
    };
  }

  /** True when no body is held any more. */
  get isIdle(): boolean {
    const free = this.budget.take(BUDGET_BYTES);
    if (free) this.budget.give(BUDGET_BYTES);
    return free;
  }
}

function answerOf(status: number, body: string | Buffer): LaneAnswer {
  return { status, requestId: "id", contentType: "text/plain", body };
}
