/** The load generator's process: takes one load from its parent, runs it, answers what it measured. */
import { NONE_FAILED } from "./answer-check.ts";
import { type Driven, drive, type Talk } from "./drive.ts";
import { Http2Talk, http2Message } from "./http2-talk.ts";
import { bodyOf, call, putRecordsBody, reading, type SignedCall, signed, wire } from "./kinesis-requests.ts";
import type { Load } from "./load.ts";
import { drivePush } from "./push-load.ts";
import { agentTalk, httpTalk, jetStreamTalk, redisAddTalk, redisRangeTalk, sensorTalk } from "./talks.ts";

/** Different requests that are sent in turn. */
const PREPARED = 16;

async function run(load: Load): Promise<Driven> {
  const options = {
    host: "127.0.0.1",
    port: load.port,
    window: load.window,
    warmMs: load.warmMs ?? 1_000,
    measureMs: load.measureMs ?? 3_000,
    onWarm: () => {
      began = process.cpuUsage();
      beganMs = performance.now();
      process.send?.({ warm: true });
    },
  };
  if (load.kind === "push") return drivePush(load, options);
  const talkOf = await talkMaker(load);
  return drive(
    Array.from({ length: load.connections }, (_, i) => talkOf(i)),
    options,
  );
}

async function talkMaker(load: Exclude<Load, { kind: "push" }>): Promise<(nth: number) => Talk> {
  switch (load.kind) {
    case "put-records": {
      const calls = putRecordsCalls(load);
      if (load.h2 === true) {
        const messages = calls.map(http2Message);
        return (nth) => new Http2Talk(messages, nth, NONE_FAILED, load.h2FrameBytes);
      }
      const messages = calls.map(wire);
      return (nth) => httpTalk(messages, nth, NONE_FAILED);
    }
    case "put-record": {
      const messages = Array.from({ length: 1_000 }, (_, i) => {
        const input = {
          StreamName: load.stream,
          Data: reading(load.recordBytes).toString("base64"),
          PartitionKey: `device-${i}`,
        };
        return wire(signed(load.endpoint, "PutRecord", Buffer.from(JSON.stringify(input))));
      });
      return (nth) => httpTalk(messages, nth * 5);
    }
    case "get-records": {
      const messages = await getRecordsMessages(load);
      return (nth) => httpTalk(messages, nth);
    }
    case "redis-add":
      return () => redisAddTalk(load.key, load.recordBytes);
    case "redis-range":
      return (nth) => redisRangeTalk(load.key, load.records, load.pages, load.recordBytes, nth);
    case "jetstream":
      return (nth) => jetStreamTalk(load.subject, nth, load.recordBytes);
    case "sensors":
      return (nth) => sensorTalk(nth, load.window, load.recordBytes);
    case "agents":
      return (nth) => agentTalk(nth, load.window, load.stream, load.records, load.recordBytes);
  }
}

function putRecordsCalls(load: Load & { kind: "put-records" }): SignedCall[] {
  return Array.from({ length: PREPARED }, (_, i) =>
    signed(
      load.endpoint,
      "PutRecords",
      putRecordsBody(load.stream, load.records, load.recordBytes, i, load.codec),
      load.codec,
    ),
  );
}

/** The first shard's pages, each with an iterator that stays good for five minutes. */
async function getRecordsMessages(load: Load & { kind: "get-records" }): Promise<Buffer[]> {
  const { endpoint, stream, codec = "json" } = load;
  const shard = { StreamName: stream, ShardId: "shardId-000000000000", ShardIteratorType: "TRIM_HORIZON" };
  let iterator = (await call<{ ShardIterator: string }>(endpoint, "GetShardIterator", shard)).ShardIterator;
  const messages: Buffer[] = [];
  while (messages.length < load.pages) {
    const input = { ShardIterator: iterator, Limit: load.records };
    const page = await call<{ NextShardIterator: string; Records: unknown[] }>(endpoint, "GetRecords", input);
    if (page.Records.length !== load.records) throw new Error(`a page of ${page.Records.length} records`);
    messages.push(wire(signed(endpoint, "GetRecords", bodyOf(input, codec), codec)));
    iterator = page.NextShardIterator;
  }
  return messages;
}

let began = process.cpuUsage();
let beganMs = performance.now();

process.once("disconnect", () => process.exit(1));
process.once("message", (load: Load) => {
  run(load).then(
    (driven) => {
      const { user, system } = process.cpuUsage(began);
      process.send?.({ driven, cores: (user + system) / 1_000 / (performance.now() - beganMs) });
    },
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) }),
  );
});
