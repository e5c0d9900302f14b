/** One call of the Kinesis API from its head to its answer, whichever way it came. */
import type { AnswerRoom } from "../answers/unread-answers.ts";
import type { AwsError } from "../aws-error.ts";
import type { Codec } from "./wire/codec.ts";

/** What is known of it from the first. */
export interface OpenCall {
  readonly requestId: string;
  readonly startedMs: number;
  readonly codec: Codec;
  /** Of the operation; empty where none is named. */
  readonly name: string;
  readonly known: boolean;
  /** Set aside for its answer, if that is a page. */
  room: AnswerRoom | undefined;
}

export function headersOf(call: OpenCall): Record<string, string> {
  return { "x-amzn-requestid": call.requestId, "content-type": call.codec.contentType };
}

export function refusalBody(call: OpenCall, refusal: AwsError): string | Buffer {
  return call.codec.encode({ __type: refusal.type, message: refusal.message });
}

/** Byte strings of CBOR are views of the body, and go into the log as such; all else is copied out of it. */
export function keepsBody({ codec }: OpenCall): boolean {
  return codec.name === "cbor";
}
