/** Puts while the disk refuses every write, as one does that is worn out or was pulled. */
import assert from "node:assert/strict";
import test from "node:test";
import { KinesisClient, PutRecordCommand } from "@aws-sdk/client-kinesis";
import { type Disk, realDisk } from "../../../../gateway/streams/stores/local/log/segment-file.ts";
import type { Log, LogFields } from "../../../../runtime/log.ts";
import { makeLocalPlace } from "../../streams/stores/local/local-place.ts";
import { KEY, openFixture } from "../api-fixture.ts";
import { call } from "../sign.ts";

const CALLS = 30;
const put = { StreamName: "s", PartitionKey: "k", Data: "QQ==" };

/** One that can be made to refuse all. */
class WornDisk implements Disk {
  isWorn = false;
  write(...args: Parameters<Disk["write"]>): Promise<void> {
    return this.#refuse() ?? realDisk.write(...args);
  }
  datasync(...args: Parameters<Disk["datasync"]>): Promise<void> {
    return this.#refuse() ?? realDisk.datasync(...args);
  }
  #refuse(): Promise<void> | undefined {
    if (!this.isWorn) return undefined;
    return Promise.reject(Object.assign(new Error("i/o error"), { code: "EIO" }));
  }
}

class Lines implements Log {
  readonly warnings: LogFields[] = [];
  readonly errors: LogFields[] = [];
  debug(): void {}
  info(): void {}
  warn(fields: LogFields): void {
    this.warnings.push(fields);
  }
  error(fields: LogFields): void {
    this.errors.push(fields);
  }
  child(): Log {
    return this;
  }
}

test("while the disk fails, puts are refused as SDKs try again, told of a few times, and counted", async (t) => {
  const place = await makeLocalPlace();
  const disk = new WornDisk();
  const streams = await place.open({ disk });
  const log = new Lines();
  const fixture = await openFixture({ log, api: { streams } });
  t.after(async () => {
    await fixture.close();
    await streams.close();
    await place.remove();
  });
  await streams.createStream({ name: "s", shards: 1, retentionHours: 24 });
  const { origin } = fixture;
  disk.isWorn = true;
  for (let i = 0; i < CALLS; i++) {
    const many = { StreamName: "s", Records: [{ PartitionKey: "k", Data: "QQ==" }] };
    const answer =
      i % 2 === 0
        ? await call(origin, "PutRecord", JSON.stringify(put))
        : await call(origin, "PutRecords", JSON.stringify(many));
    assert.equal(answer.status, 500);
    assert.equal(answer.type, "InternalFailure");
    assert.match(answer.message, /^The gateway cannot write to its disk/);
  }
  assert.deepEqual(log.errors, []);
  assert.equal(log.warnings.length, 10);
  for (const line of log.warnings) {
    assert.match(String(line.error), /^LOG_WRITE_FAILED: .*i\/o error/);
    assert.ok(!("stack" in line));
  }
  const metrics = await (await fetch(`${origin}/metrics`)).text();
  for (const operation of ["PutRecord", "PutRecords"]) {
    const counted = `headwater_kinesis_requests_total{operation="${operation}",outcome="InternalFailure"} ${CALLS / 2}`;
    assert.ok(metrics.includes(counted), metrics);
  }

  // The SDK gets through by itself once the disk is good again.
  const client = new KinesisClient({
    endpoint: origin,
    region: "us-east-1",
    credentials: { accessKeyId: KEY.id, secretAccessKey: KEY.secret },
    maxAttempts: 100,
  });
  t.after(() => client.destroy());
  const stored = client.send(new PutRecordCommand({ ...put, Data: Buffer.from("A") }));
  const before = log.warnings.length;
  const tries = /operation="PutRecord",outcome="InternalFailure"\} (\d+)/;
  for (let tried = 0; tried <= CALLS / 2; ) {
    tried = Number(tries.exec(await (await fetch(`${origin}/metrics`)).text())![1]);
  }
  assert.equal(log.warnings.length, before);
  disk.isWorn = false;
  assert.equal((await stored).ShardId, "shardId-000000000000");
});
