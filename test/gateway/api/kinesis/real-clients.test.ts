/** Clients that other people wrote, as Debian ships them: boto3, the AWS CLI, and the SDKs for Go and Ruby. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import test from "node:test";
import { promisify } from "node:util";
import { type Fixture, KEY, openFixture } from "../api-fixture.ts";

// By their full paths: what stands before them in PATH may be another Python without these packages.
const PYTHON = "/usr/bin/python3";
const BOTO3 = "/usr/lib/python3/dist-packages/boto3/__init__.py";
const AWS = "/usr/bin/aws";
const GO = "/usr/bin/go";
const GO_PACKAGES = "/usr/share/gocode";
const GO_SDK = `${GO_PACKAGES}/src/github.com/aws/aws-sdk-go-v2/service/kinesis/api_client.go`;
const RUBY = "/usr/bin/ruby";
const RUBY_SDK = "/usr/lib/ruby/vendor_ruby/aws/kinesis.rb";
const TIMEOUT_MS = 120_000;
const run = promisify(execFile);
let fixture: Fixture;

test.before(async () => {
  fixture = await openFixture();
});
test.after(() => fixture.close());

const missing = (what: string, ...files: string[]): string | false =>
  files.every((file) => existsSync(file)) ? false : `Debian's ${what} is not installed`;

test("boto3 lives the life of a stream", { skip: missing("python3-boto3", PYTHON, BOTO3) }, async () => {
  const script = "test/gateway/api/kinesis/real-clients.py";
  const done = await run(PYTHON, [script, fixture.origin, KEY.id, KEY.secret], {
    timeout: TIMEOUT_MS,
    env: { AWS_EC2_METADATA_DISABLED: "true", PYTHONDONTWRITEBYTECODE: "1" },
  });
  assert.equal(done.stdout.trim().split("\n").at(-1), "done", done.stderr);
});

test("the SDK for Go lives the life of a stream, enhanced fan-out included", {
  skip: missing("golang-go and golang-github-aws-aws-sdk-go-v2-dev", GO, GO_SDK),
}, async () => {
  const script = "test/gateway/api/kinesis/real-clients.go";
  const done = await run(GO, ["run", script, fixture.origin, KEY.id, KEY.secret], {
    timeout: TIMEOUT_MS,
    // Debian's packages are of the time before modules. HOME has what an earlier run compiled.
    env: { GO111MODULE: "off", GOPATH: GO_PACKAGES, HOME: homedir(), PATH: "/usr/bin:/bin" },
  });
  assert.equal(done.stdout.trim().split("\n").at(-1), "done", done.stdout);
});

test("the SDK for Ruby lives the life of a stream", {
  skip: missing("ruby-aws-sdk", RUBY, RUBY_SDK),
}, async () => {
  const script = "test/gateway/api/kinesis/real-clients.rb";
  const { hostname, port } = new URL(fixture.origin);
  const done = await run(RUBY, ["-W0", script, hostname, port, KEY.id, KEY.secret], { timeout: TIMEOUT_MS });
  assert.equal(done.stdout.trim().split("\n").at(-1), "done", done.stderr);
});

test("the AWS CLI makes, fills, splits, merges, reads and deletes a stream", {
  skip: missing("awscli", AWS),
}, async () => {
  const env = {
    AWS_ACCESS_KEY_ID: KEY.id,
    AWS_SECRET_ACCESS_KEY: KEY.secret,
    AWS_DEFAULT_REGION: "us-east-1",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_PAGER: "",
    PATH: "/usr/bin:/bin",
  };
  // biome-ignore lint/suspicious/noExplicitAny: answers are JSON of many shapes
  const aws = async (...args: string[]): Promise<any> => {
    const done = await run(AWS, ["--endpoint-url", fixture.origin, "--output", "json", "kinesis", ...args], {
      timeout: TIMEOUT_MS,
      env,
    });
    return done.stdout.trim() === "" ? undefined : JSON.parse(done.stdout);
  };
  const stream = ["--stream-name", "from-cli"];
  await aws("create-stream", ...stream, "--shard-count", "1");
  await aws("wait", "stream-exists", ...stream);
  const data = Buffer.from("by hand").toString("base64");
  const put = await aws("put-record", ...stream, "--partition-key", "k", "--data", data);
  assert.equal(put.ShardId, "shardId-000000000000");
  const half = String(2n ** 127n);
  await aws("split-shard", ...stream, "--shard-to-split", put.ShardId, "--new-starting-hash-key", half);
  await aws("add-tags-to-stream", ...stream, "--tags", "a=b");
  const { Shards } = await aws("list-shards", ...stream, "--shard-filter", "Type=AT_LATEST");
  assert.equal(Shards.length, 2);
  const [one, other] = Shards.map((shard: { ShardId: string }) => shard.ShardId);
  const many = await aws("put-records", ...stream, "--records", `Data=${data},PartitionKey=a`);
  assert.equal(many.FailedRecordCount, 0);
  await aws("merge-shards", ...stream, "--shard-to-merge", one, "--adjacent-shard-to-merge", other);
  assert.deepEqual((await aws("list-tags-for-stream", ...stream)).Tags, [{ Key: "a", Value: "b" }]);
  const { StreamDescriptionSummary: summary } = await aws("describe-stream-summary", ...stream);
  assert.equal(summary.OpenShardCount, 1);
  const named = ["--stream-arn", summary.StreamARN, "--consumer-name", "from-cli"];
  assert.equal((await aws("register-stream-consumer", ...named)).Consumer.ConsumerStatus, "ACTIVE");
  await aws("deregister-stream-consumer", ...named);
  const { ShardIterator } = await aws(
    "get-shard-iterator",
    ...stream,
    "--shard-id",
    put.ShardId,
    "--shard-iterator-type",
    "AT_SEQUENCE_NUMBER",
    "--starting-sequence-number",
    put.SequenceNumber,
  );
  const read = await aws("get-records", "--shard-iterator", ShardIterator);
  assert.deepEqual(
    read.Records.map((record: { Data: string }) => record.Data),
    [data],
  );
  await assert.rejects(
    aws("describe-stream", "--stream-name", "absent"),
    /ResourceNotFoundException.*Stream absent under account 000000000000 not found/,
  );
  await aws("delete-stream", ...stream);
  assert.deepEqual((await aws("list-streams")).StreamNames, []);
});
