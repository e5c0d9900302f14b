/** What the lanes serve, over HTTP/1.1 (request-lane.ts) and HTTP/2 (stream-lane.ts) alike. */
import type { HeadwaterError } from "../../../runtime/errors.ts";
import type { AnswerRoom, UnreadAnswers } from "../answers/unread-answers.ts";
import type { BodyBudget, BodySender } from "../bodies/body-budget.ts";
import type { Asker } from "../exchange.ts";
import type { CallHead } from "./request-head.ts";

export interface LaneAnswer {
  readonly status: number;
  readonly requestId: string;
  readonly contentType: string;
  readonly body: string | Buffer;
  /** Set aside for it; what the answer does not take stays with who reserved it. */
  readonly room?: AnswerRoom | undefined;
}

/** @returns false where there is no room for so large an answer now: a smaller one is due then */
export type AnswerTaker = (answer: LaneAnswer) => boolean;

/**
 * A call whose head was accepted. One of `run` and `refuse` is called, once; both answer, and never throw. What
 * `isProven` says is final once they have returned.
 */
export interface LaneCall extends BodySender {
  /** Otherwise the bytes of the body may be written over once `run` has returned. */
  readonly keepsBody: boolean;
  run(body: Buffer, answer: AnswerTaker, asker: Asker): void;
  /** There is no body; after a BodyCutOffError there is nobody to answer, either. */
  refuse(why: HeadwaterError, answer: AnswerTaker): void;
}

export interface LaneService {
  readonly budget: BodyBudget;
  /** Answers that were given and not taken yet. */
  readonly unread: UnreadAnswers;
  readonly maxBodyBytes: number;
  /** Undefined for what is to go the plain way: calls of others, and what is refused by its head alone. */
  begin(head: CallHead): LaneCall | undefined;
}
