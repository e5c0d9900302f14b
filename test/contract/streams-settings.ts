/** The settings of a stream and its registered readers, in every store; part of the streams' contract. */
import assert from "node:assert/strict";
import {
  ReaderExistsError,
  ReaderNotFoundError,
  StreamNotFoundError,
  type Streams,
} from "../../gateway/streams/streams.ts";
import { beforeAndAfter, type Fact } from "./stream-records.ts";

const BAD_SETTINGS = [
  { retentionHours: 0 },
  { retentionHours: Number.NaN },
  { maxRecordBytes: 0 },
  { maxRecordBytes: 1.5 },
  { maxRecordBytes: 10 * 1_048_576 + 1 },
];

const make = (streams: Streams) => streams.createStream({ name: "s", shards: 1, retentionHours: 24 });

export function settingsContract(fact: Fact): void {
  fact("settings are kept and can be changed, also after a reopening", async (streams, reopen) => {
    const made = await make(streams);
    const { mode, limits, maxRecordBytes, tags } = made;
    assert.deepEqual([mode, limits, maxRecordBytes, tags], ["provisioned", "none", 1_048_576, {}]);
    await streams.createStream({
      name: "t",
      shards: 1,
      retentionHours: 24,
      mode: "on-demand",
      limits: "aws",
      maxRecordBytes: 2_000_000,
      tags: { site: "north" },
    });
    const settings = streams.settings("s");
    assert.equal(streams.settings("s"), settings);
    const changed = await streams.updateStream("s", { retentionHours: 48, tags: { a: "1" } });
    assert.deepEqual([changed.retentionHours, changed.tags, changed.mode], [48, { a: "1" }, "provisioned"]);
    await streams.updateStream("s", { maxRecordBytes: 10_000, mode: "on-demand", limits: "aws" });
    await assert.rejects(streams.updateStream("none", { retentionHours: 48 }), StreamNotFoundError);
    for (const change of BAD_SETTINGS) {
      await assert.rejects(streams.updateStream("s", change), { code: "BAD_STREAM" }, JSON.stringify(change));
    }
    for (const bad of [...BAD_SETTINGS, { shards: 0 }, { shards: 1.5 }, { shards: 4_097 }]) {
      const spec = { name: "bad", shards: 1, retentionHours: 24, ...bad };
      await assert.rejects(streams.createStream(spec), { code: "BAD_STREAM" }, JSON.stringify(bad));
    }
    assert.deepEqual(streams.listStreams(), ["s", "t"]);
    for await (const opened of beforeAndAfter(streams, reopen)) {
      const { name, streamId, createdMs } = made;
      assert.deepEqual(opened.settings("s"), {
        name,
        streamId,
        createdMs,
        shards: 1,
        retentionHours: 48,
        mode: "on-demand",
        limits: "aws",
        maxRecordBytes: 10_000,
        tags: { a: "1" },
      });
      const other = opened.describe("t");
      assert.deepEqual(
        [other.mode, other.limits, other.maxRecordBytes, other.tags],
        ["on-demand", "aws", 2_000_000, { site: "north" }],
      );
    }
  });

  fact("readers are registered by name, also after a reopening", async (streams, reopen) => {
    await make(streams);
    const first = await streams.registerReader("s", "b", { team: "x" });
    assert.deepEqual([first.name, first.tags], ["b", { team: "x" }]);
    await streams.registerReader("s", "a", {});
    await assert.rejects(streams.registerReader("s", "a", {}), ReaderExistsError);
    await streams.updateReader("s", "b", { team: "y" });
    await assert.rejects(streams.updateReader("s", "z", {}), ReaderNotFoundError);
    const opened = await reopen();
    assert.deepEqual(
      opened.registeredReaders("s").map(({ name, tags, createdMs }) => [name, tags, createdMs > 0]),
      [
        ["a", {}, true],
        ["b", { team: "y" }, true],
      ],
    );
    assert.equal(opened.registeredReaders("s")[1]!.createdMs, first.createdMs);
    await opened.deregisterReader("s", "a");
    await assert.rejects(opened.deregisterReader("s", "a"), ReaderNotFoundError);
    assert.throws(() => opened.registeredReaders("none"), StreamNotFoundError);
    await opened.deleteStream("s");
    await make(opened);
    assert.deepEqual(opened.registeredReaders("s"), []);
  });
}
