/**
 * Kinesis Data Streams over AWS JSON 1.1 and CBOR: finds out who asks and what for, checks the signature, runs
 * the operation, and gives every failure AWS's shape. docs/reference/kinesis-api.md says what is there.
 *
 *   POST / + X-Amz-Target → key, date and scope → body → signature → allowed? → operation
 */
import { randomUUID } from "node:crypto";
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { describeError, HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import { LogBusyError, LogFullError, type Streams, StreamsClosedError } from "../../streams/streams.ts";
import { allows } from "../access.ts";
import { AwsError } from "../aws-error.ts";
import {
  BodyBudget,
  BodyCutOffError,
  BodyTooLargeError,
  BusyError,
  type Exchange,
  header,
  send,
  sendAndPart,
  withBody,
} from "../exchange.ts";
import { SignatureVerifier } from "../sigv4.ts";
import { Account } from "./account.ts";
import { type Codec, codecOf } from "./codec.ts";
import type { KinesisContext } from "./operation.ts";
import { isKnown, operationOf } from "./operations.ts";
import { ShardRates } from "./rate-limits.ts";
import { TokenSealer } from "./sealed-token.ts";
import { Subscriptions } from "./subscriptions.ts";
import { Turns } from "./turns.ts";

const TARGET_PREFIX = "Kinesis_20131202.";
/** A PutRecords of 10 MiB, the largest, is a third more in base64; and there are its keys. */
const MAX_BODY_BYTES = 16 * 1_048_576;
/** Bodies held at once, over all connections. */
const BODY_BUDGET_BYTES = 256 * 1_048_576;

export interface KinesisOptions {
  readonly streams: Streams;
  readonly accessKeys: readonly AccessKeyConfig[];
  readonly region: string;
  readonly accountId: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

export class KinesisApi {
  readonly #context: KinesisContext;
  readonly #verifier: SignatureVerifier<AccessKeyConfig>;
  readonly #budget = new BodyBudget(BODY_BUDGET_BYTES);
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #requests;
  readonly #seconds;

  constructor(options: KinesisOptions) {
    const { streams, region, accountId, clock, accessKeys } = options;
    const secrets = accessKeys.map((key) => key.secret);
    this.#context = {
      streams,
      clock,
      account: new Account(streams, region, accountId),
      iterators: new TokenSealer(secrets, "shard iterator"),
      nextTokens: new TokenSealer(secrets, "next token"),
      turns: new Turns(),
      subscriptions: new Subscriptions({ streams, clock, metrics: options.metrics }),
      rates: new ShardRates(clock),
    };
    this.#verifier = new SignatureVerifier({ keys: accessKeys, region, service: "kinesis", clock });
    this.#log = options.log;
    this.#clock = clock;
    this.#requests = options.metrics.counter(
      "headwater_kinesis_requests_total",
      "Calls of the Kinesis API by operation and outcome",
      ["operation", "outcome"],
    );
    this.#seconds = options.metrics.histogram(
      "headwater_kinesis_request_seconds",
      "From the first byte of a call's head to the answer",
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
      ["operation"],
    );
  }

  /** Ends what would go on for minutes. Safe to call twice. */
  close(): void {
    this.#context.subscriptions.close();
  }

  /** Answers in every case; never rejects. */
  async handle(exchange: Exchange): Promise<void> {
    const requestId = randomUUID();
    const startedMs = this.#clock.monotonicMs();
    const codec = codecOf(header(exchange, "content-type"));
    const headers = { "x-amzn-requestid": requestId, "content-type": codec.contentType };
    const target = header(exchange, "x-amz-target");
    const name = target.startsWith(TARGET_PREFIX) ? target.slice(TARGET_PREFIX.length) : "";
    const known = isKnown(name);
    const operation = known ? name : "unknown";
    let outcome = "ok";
    try {
      const answer = await this.#run(exchange, name, known, codec);
      if (answer !== undefined) send(exchange, 200, headers, answer);
    } catch (error) {
      const refusal = this.#refusalOf(error, operation, requestId);
      outcome = refusal?.type ?? "cut off";
      if (refusal === undefined || exchange.reply.headersSent) exchange.reply.destroy();
      else {
        const body = codec.encode({ __type: refusal.type, message: refusal.message });
        if (refusal.status === 413) sendAndPart(exchange, 413, headers, body);
        else send(exchange, refusal.status, headers, body);
      }
    }
    this.#requests.inc({ operation, outcome });
    this.#seconds.observe({ operation }, (this.#clock.monotonicMs() - startedMs) / 1000);
  }

  /** The answer's body; undefined where the operation has answered by itself. */
  async #run(
    exchange: Exchange,
    name: string,
    known: boolean,
    codec: Codec,
  ): Promise<string | Buffer | undefined> {
    if (!known) {
      throw new AwsError(
        "UnknownOperationException",
        `X-Amz-Target must name an operation as ${TARGET_PREFIX}ListStreams does.`,
      );
    }
    const claim = this.#verifier.open({
      method: exchange.method,
      path: exchange.path,
      query: exchange.query,
      rawHeaders: exchange.request.rawHeaders,
      host: exchange.host,
    });
    const answer = await withBody(exchange, MAX_BODY_BYTES, this.#budget, async (body) => {
      claim.check(body);
      this.#mayCall(claim.key, name);
      const operation = operationOf(name);
      if ("raw" in operation) return await operation.raw(this.#context, body, codec);
      const input = codec.decode(body);
      // It may go on for minutes; the body is not held for so long.
      if ("stream" in operation) return () => operation.stream(this.#context, input, exchange, codec);
      const output = await operation(this.#context, input);
      return output === undefined ? "" : codec.encode(output);
    });
    if (typeof answer !== "function") return answer;
    await answer();
    return undefined;
  }

  #mayCall(key: AccessKeyConfig, name: string): void {
    if (allows(key, `kinesis:${name}`)) return;
    const { accountId } = this.#context.account;
    throw new AwsError(
      "AccessDeniedException",
      `User: arn:aws:iam::${accountId}:user/${key.id} is not authorized to perform: kinesis:${name} because no identity-based policy allows the kinesis:${name} action`,
    );
  }

  /** Undefined when there is nobody left to tell. */
  #refusalOf(error: unknown, operation: string, requestId: string): AwsError | undefined {
    if (error instanceof AwsError) return error;
    if (error instanceof BodyCutOffError) return undefined;
    if (error instanceof BodyTooLargeError) {
      return new AwsError(
        "RequestEntityTooLargeException",
        `The request is too large: ${error.message}.`,
        413,
      );
    }
    if (error instanceof BusyError) {
      return new AwsError("ServiceUnavailable", "The gateway is busy; try again.", 503);
    }
    // SDKs try these again by themselves, with back-off; nothing was stored.
    if (error instanceof LogFullError || error instanceof LogBusyError) {
      const why = error instanceof LogFullError ? "its disk is full" : "its disk is busy";
      return new AwsError(
        "ProvisionedThroughputExceededException",
        `The gateway cannot store records at the moment: ${why}.`,
        400,
        error,
      );
    }
    if (error instanceof StreamsClosedError) {
      return new AwsError("ServiceUnavailable", "The gateway is closing.", 503, error);
    }
    // What went wrong is for the operator; the caller gets the id under which it was logged.
    this.#log.error(
      {
        operation,
        requestId,
        error: describeError(error),
        stack: error instanceof HeadwaterError ? undefined : error instanceof Error ? error.stack : undefined,
      },
      "a Kinesis call failed",
    );
    return new AwsError(
      "InternalFailure",
      `Internal failure; the gateway's log has ${requestId}.`,
      500,
      error,
    );
  }
}
