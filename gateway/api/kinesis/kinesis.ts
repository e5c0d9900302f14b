/**
 * Kinesis Data Streams over AWS JSON 1.1 and CBOR: finds out who asks and what for, checks the signature, runs
 * the operation, and gives every failure AWS's shape. docs/reference/kinesis-api.md says what is there.
 *
 *   POST / + X-Amz-Target → key, date and scope → body → signature → allowed? → operation
 */
import type { AccessKeyConfig } from "../../../config/gateway-config.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { HeadwaterError } from "../../../runtime/errors.ts";
import type { Log } from "../../../runtime/log.ts";
import { heldMemoryBytes } from "../../../runtime/machine-memory.ts";
import type { Metrics } from "../../../runtime/metrics.ts";
import type { HistogramTally, Tally } from "../../../runtime/tally.ts";
import type { Streams } from "../../streams/streams.ts";
import { giveAnswer, isLent } from "../answers/answer-memory.ts";
import { giveBehindReply } from "../answers/answers-on-way.ts";
import { AnswerRoom, UnreadAnswers } from "../answers/unread-answers.ts";
import { AwsError } from "../aws-error.ts";
import { BodyBudget, BusyError, UnprovenBusyError } from "../bodies/body-budget.ts";
import type { AnswerTaker, LaneCall, LaneService } from "../door/lane-service.ts";
import type { CallHead } from "../door/request-head.ts";
import {
  type Asker,
  AskerGoneError,
  connectionOf,
  type Exchange,
  header,
  readBody,
  send,
  sendAndPart,
} from "../exchange.ts";
import { RequestIds } from "../request-ids.ts";
import { allows } from "../signature/access.ts";
import { type SignatureClaim, SignatureVerifier, type SignedRequest } from "../signature/sigv4.ts";
import { Account } from "./account.ts";
import { headersOf, keepsBody, type OpenCall, refusalBody } from "./open-call.ts";
import type { KinesisContext } from "./operation.ts";
import { isKnown, isStreaming, operationOf } from "./operations.ts";
import { PageThread } from "./pages/page-thread.ts";
import { Subscriptions } from "./push/subscriptions.ts";
import { ShardRates } from "./rate-limits.ts";
import { ReadMeters } from "./read-meters.ts";
import { Refusals } from "./refusals.ts";
import { TokenSealer } from "./sealed-token.ts";
import { Turns } from "./turns.ts";
import { codecOf } from "./wire/codec.ts";

const TARGET_PREFIX = "Kinesis_20131202.";
/** A PutRecords of 10 MiB, the largest, is a third more in base64; and there are its keys. */
const MAX_BODY_BYTES = 16 * 1_048_576;
/** Of bodies, over all connections; and of large answers that wait for their clients. */
const HELD_BYTES = heldMemoryBytes();

export interface KinesisOptions {
  readonly streams: Streams;
  readonly accessKeys: readonly AccessKeyConfig[];
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface CallCounts {
  readonly done: Tally;
  readonly seconds: HistogramTally;
}

type StreamedAnswer = (exchange: Exchange) => Promise<void>;

export class KinesisApi implements LaneService {
  readonly maxBodyBytes = MAX_BODY_BYTES;
  readonly budget = new BodyBudget(HELD_BYTES);
  readonly unread = new UnreadAnswers(HELD_BYTES);
  readonly #context: KinesisContext;
  readonly #verifier: SignatureVerifier<AccessKeyConfig>;
  readonly #ids = new RequestIds();
  readonly #refusals: Refusals;
  readonly #clock: Clock;
  /** What `allows` said, by key and operation. */
  readonly #allowed = new Map<AccessKeyConfig, Map<string, boolean>>();
  readonly #requests;
  readonly #seconds;
  /** What is counted of a call that went well, by operation. */
  readonly #counts = new Map<string, CallCounts>();
  readonly #metrics: Metrics;

  constructor(options: KinesisOptions) {
    const { streams, clock, accessKeys } = options;
    const secrets = accessKeys.map((key) => key.secret);
    const reads = new ReadMeters(options.metrics, clock, () => streams.listStreams());
    const account = new Account(streams);
    const { region, accountId } = account;
    this.#context = {
      streams,
      clock,
      account,
      iterators: new TokenSealer(secrets, "shard iterator"),
      nextTokens: new TokenSealer(secrets, "next token"),
      turns: new Turns(),
      subscriptions: new Subscriptions({ streams, accountId, clock, metrics: options.metrics, reads }),
      reads,
      rates: new ShardRates(clock),
      pageThread: new PageThread(options),
    };
    this.#verifier = new SignatureVerifier({ keys: accessKeys, region, service: "kinesis", clock });
    this.#refusals = new Refusals(options.log, clock);
    this.#clock = clock;
    this.#metrics = options.metrics;
    this.#requests = options.metrics.counter(
      "headwater_kinesis_requests_total",
      "Calls of the Kinesis API by operation and outcome",
      ["operation", "outcome"],
    );
    this.#seconds = options.metrics.tallies(
      "headwater_kinesis_request_seconds",
      "From the first byte of a call's head to the answer",
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
      "operation",
    );
    const { budget } = this;
    options.metrics.gauge(
      "headwater_api_body_bytes",
      "Bytes of requests' bodies that are held, by whether their senders are known",
      ["sender"],
      function () {
        const { heldBytes } = budget.strangers;
        this.set({ sender: "proven" }, budget.usedBytes - heldBytes);
        this.set({ sender: "unproven" }, heldBytes);
      },
    );
  }

  /** Ends what would go on for minutes. Safe to call twice. */
  close(): void {
    this.#context.subscriptions.close();
    this.#context.pageThread.close();
  }

  /** Answers in every case. */
  handle(exchange: Exchange): void {
    const call = this.#open(header(exchange, "x-amz-target"), header(exchange, "content-type"));
    const refuse = (error: unknown): void => this.#refuse(call, error, exchange);
    let claim: SignatureClaim<AccessKeyConfig>;
    try {
      claim = this.#judge(call, {
        method: exchange.method,
        path: exchange.path,
        query: exchange.query,
        rawHeaders: exchange.request.rawHeaders,
        host: exchange.host,
      });
    } catch (error) {
      refuse(error);
      return;
    }
    const connection = connectionOf(exchange);
    const prove = (): void => {
      if (claim.isProven) this.budget.prove(connection, claim.keyId);
    };
    prove();
    const holder = this.budget.holderOf(connection);
    const heard = (refusal: HeadwaterError | undefined, body: Buffer): void => {
      if (refusal !== undefined) {
        if (refusal instanceof UnprovenBusyError) claim.checkDiscarded();
        prove();
        refuse(refusal);
        return;
      }
      const heldBytes = body.length;
      const performed = this.perform(call, claim, body, exchange);
      prove();
      performed
        .finally(() => this.budget.give(heldBytes, holder))
        .then((answer) => {
          if (typeof answer !== "function") return this.#send(call, answer, exchange, claim.keyId);
          // It may go on for minutes; the body is not held for so long.
          return answer(exchange);
        })
        .then(() => this.count(call, "ok"), refuse);
    };
    const sender = holder === this.budget.strangers ? claim : undefined;
    readBody(exchange.request, this.maxBodyBytes, this.budget, keepsBody(call), heard, holder, sender);
  }

  /** Calls that come by the lane; what their heads alone refuse, and what streams, goes by `handle`. */
  begin(head: CallHead): LaneCall | undefined {
    const call = this.#open(head.target, head.contentType);
    if (!call.known || isStreaming(call.name)) return undefined;
    let claim: SignatureClaim<AccessKeyConfig>;
    try {
      claim = this.#verifier.openCanonical(head);
    } catch {
      return undefined;
    }
    return new KinesisLaneCall(this, call, claim);
  }

  #open(target: string, contentType: string): OpenCall {
    const name = target.startsWith(TARGET_PREFIX) ? target.slice(TARGET_PREFIX.length) : "";
    return {
      requestId: this.#ids.next(),
      startedMs: this.#clock.monotonicMs(),
      codec: codecOf(contentType),
      name,
      known: isKnown(name),
      room: undefined,
    };
  }

  #judge(call: OpenCall, request: SignedRequest): SignatureClaim<AccessKeyConfig> {
    if (call.known) return this.#verifier.open(request);
    throw new AwsError(
      "UnknownOperationException",
      `X-Amz-Target must name an operation as ${TARGET_PREFIX}ListStreams does.`,
    );
  }

  /**
   * A signed body becomes an answer; or, of an operation that streams, a function that answers.
   * Body and signature are looked at before this returns.
   */
  perform(
    call: OpenCall,
    claim: SignatureClaim<AccessKeyConfig>,
    body: Buffer,
    asker: Asker,
  ): Promise<string | Buffer | StreamedAnswer> {
    // Written without `async`, whose promises were a tenth of a PutRecord.
    try {
      claim.check(body);
      this.#mayCall(claim.key, call.name);
      const operation = operationOf(call.name);
      if ("raw" in operation) return operation.raw(this.#context, body, call.codec);
      if ("page" in operation) {
        call.room = new AnswerRoom(this.unread, claim.keyId, asker);
        return operation.page(this.#context, body, call.codec, call.room);
      }
      const input = call.codec.decode(body);
      if ("stream" in operation) {
        return Promise.resolve((exchange) =>
          operation.stream(this.#context, input, exchange, call.codec, call.requestId),
        );
      }
      return operation(this.#context, input).then((output) =>
        output === undefined ? "" : call.codec.encode(output),
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #mayCall(key: AccessKeyConfig, name: string): void {
    let allowed = this.#allowed.get(key);
    if (allowed === undefined) {
      allowed = new Map();
      this.#allowed.set(key, allowed);
    }
    let may = allowed.get(name);
    if (may === undefined) {
      may = allows(key, `kinesis:${name}`);
      allowed.set(name, may);
    }
    if (may) return;
    const { accountId } = this.#context.account;
    throw new AwsError(
      "AccessDeniedException",
      `User: arn:aws:iam::${accountId}:user/${key.id} is not authorized to perform: kinesis:${name} because no identity-based policy allows the kinesis:${name} action`,
    );
  }

  /** @throws BusyError */
  #send(call: OpenCall, answer: string | Buffer, exchange: Exchange, keyId: string): void {
    try {
      this.unread.hold(exchange.reply, answer.length, keyId, call.room);
    } catch (error) {
      giveAnswer(answer);
      throw error;
    } finally {
      call.room?.giveBack();
    }
    if (isLent(answer)) giveBehindReply(exchange, answer);
    send(exchange, 200, headersOf(call), answer);
  }

  #refuse(call: OpenCall, error: unknown, exchange: Exchange): void {
    call.room?.giveBack();
    const refusal = this.refusalOf(call, error);
    if (refusal === undefined || exchange.reply.headersSent) exchange.reply.destroy();
    else {
      const { status } = refusal;
      const body = refusalBody(call, refusal);
      if (status === 413) sendAndPart(exchange, 413, headersOf(call), body);
      else send(exchange, status, headersOf(call), body);
    }
    this.count(call, refusal?.type ?? "cut off");
  }

  /** Undefined when there is nobody left to tell. */
  refusalOf(call: OpenCall, error: unknown): AwsError | undefined {
    return this.#refusals.of(error, call.known ? call.name : "unknown", call.requestId);
  }

  /** @param outcome `ok`, or what went wrong */
  count(call: OpenCall, outcome: string): void {
    const operation = call.known ? call.name : "unknown";
    const counts = this.#counts.get(operation) ?? this.#countsOf(operation);
    if (outcome === "ok") counts.done.add(1);
    else this.#requests.inc({ operation, outcome });
    counts.seconds.observe((this.#clock.monotonicMs() - call.startedMs) / 1000);
  }

  #countsOf(operation: string): CallCounts {
    const done = this.#metrics.tally(this.#requests, { operation, outcome: "ok" });
    const counts = { done, seconds: this.#seconds(operation) };
    this.#counts.set(operation, counts);
    return counts;
  }
}

/** A call of the lane. */
class KinesisLaneCall implements LaneCall {
  readonly #api: KinesisApi;
  readonly #call: OpenCall;
  readonly #claim: SignatureClaim<AccessKeyConfig>;
  #answer: AnswerTaker = () => true;

  constructor(api: KinesisApi, call: OpenCall, claim: SignatureClaim<AccessKeyConfig>) {
    this.#api = api;
    this.#call = call;
    this.#claim = claim;
  }

  get keepsBody(): boolean {
    return keepsBody(this.#call);
  }

  get keyId(): string {
    return this.#claim.keyId;
  }

  get isProven(): boolean {
    return this.#claim.isProven;
  }

  discard(piece: Buffer): void {
    this.#claim.discard(piece);
  }

  run(body: Buffer, answer: AnswerTaker, asker: Asker): void {
    this.#answer = answer;
    this.#api.perform(this.#call, this.#claim, body, asker).then(this.#done, this.#failed);
  }

  refuse(why: HeadwaterError, answer: AnswerTaker): void {
    if (why instanceof UnprovenBusyError) this.#claim.checkDiscarded();
    this.#answer = answer;
    this.#failed(why);
  }

  readonly #done = (body: unknown): void => {
    // Operations that stream do not come here.
    if (this.#tell(200, body as string | Buffer)) this.#api.count(this.#call, "ok");
    else this.#failed(new BusyError());
  };

  readonly #failed = (error: unknown): void => {
    const refusal = this.#api.refusalOf(this.#call, error);
    this.#api.count(this.#call, refusal?.type ?? "cut off");
    if (refusal !== undefined) this.#tell(refusal.status, refusalBody(this.#call, refusal));
    // Nobody hears it, but the lane still holds the body.
    else if (error instanceof AskerGoneError) this.#tell(503, "");
  };

  #tell(status: number, body: string | Buffer): boolean {
    const { requestId, codec, room } = this.#call;
    const told = this.#answer({ status, requestId, contentType: codec.contentType, body, room });
    room?.giveBack();
    return told;
  }
}
