/** What the operations of the API need of a gateway, for calls without a port. */
import { Account } from "../../../../../gateway/api/kinesis/account.ts";
import type { KinesisContext } from "../../../../../gateway/api/kinesis/operation.ts";
import { Turns } from "../../../../../gateway/api/kinesis/turns.ts";
import type { Streams } from "../../../../../gateway/streams/streams.ts";
import { systemClock } from "../../../../../runtime/clock.ts";

export function contextOf(streams: Streams): KinesisContext {
  return {
    streams,
    clock: systemClock,
    account: new Account(streams),
    turns: new Turns(),
  } as unknown as KinesisContext;
}
