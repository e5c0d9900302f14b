/** A gateway is cut off while a publish is on its way, and its client sends it again by another one, and very many others. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import type { PlainPublish } from "../../../../../gateway/streams/streams.ts";
import type { HeadwaterError } from "../../../../../runtime/errors.ts";
import { publishColumns } from "../../../../contract/stream-records.ts";
import { clusterFact as fact, textsOf, until } from "./cluster-fact.ts";

const REMEMBERED = 64;

function publishOf(packetId: number, mayRepeat: boolean): PlainPublish {
  const payload = Buffer.from(String(packetId));
  return { clientId: "plug", packetId, partitionKey: "k", mayRepeat, timeUs: 1, payload };
}

for (const { behind, outcome } of [
  { behind: REMEMBERED - 1, outcome: "known" },
  { behind: REMEMBERED + 1, outcome: "refused" },
]) {
  fact(
    `a publish that comes behind ${behind} others of its client is ${outcome}, not stored twice, and no other client's concern`,
    async (ground) => {
      const [a, b] = [await ground.open(), await ground.open()];
      await a.createStream({ name: "s", shards: 1, retentionHours: 24 });
      await until(() => b.listStreams().includes("s"));
      const { publish } = Link.prototype;
      const connected = new EventTarget();
      const isBack = new Promise((resolve) => connected.addEventListener("back", resolve));
      let isFirst = true;
      const publishes = mock.method(
        Link.prototype,
        "publish",
        async function (this: Link, ...message: Parameters<Link["publish"]>) {
          const isCutOff = isFirst;
          isFirst = false;
          if (isCutOff) await isBack;
          return publish.apply(this, message);
        },
      );
      try {
        const bystander = { ...publishOf(REMEMBERED * 2, false), clientId: "bystander" };
        const together = a.appendPublishes("s", publishColumns([publishOf(1, false), bystander]));
        assert.equal(await b.appendPublish("s", publishOf(1, true)), "stored");
        for (let i = 1; i <= behind; i++) await b.appendPublish("s", publishOf(1 + i, false));
        connected.dispatchEvent(new Event("back"));
        const [late, beside] = await together;
        if (outcome === "known") assert.equal(late, "duplicate");
        else assert.equal((late as HeadwaterError).code, "PUBLISH_TOO_LATE");
        assert.equal(beside, "stored");
        const wanted = Array.from({ length: behind + 1 }, (_, i) => String(1 + i));
        const texts = (await textsOf(b)).map(String);
        assert.deepEqual(
          texts.filter((text) => text !== String(bystander.packetId)),
          wanted,
        );
        assert.equal(texts.length, wanted.length + 1);
        // Nothing keeps the stream from being written.
        assert.equal(a.describe("s").refusing, undefined);
        // Its client comes back.
        assert.equal(await a.appendPublish("s", publishOf(behind + 2, false)), "stored");
      } finally {
        publishes.mock.restore();
      }
    },
  );
}
