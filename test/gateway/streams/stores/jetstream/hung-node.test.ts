/** The node that a gateway is connected to hangs, and more is on its way to it than the system's buffers take. */
import assert from "node:assert/strict";
import { Link } from "../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { systemClock } from "../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../runtime/metrics.ts";
import { clusterFact as fact } from "./cluster-fact.ts";

const MESSAGES = 64;
const MIB = 1_048_576;

fact(
  "a node that hangs with much on its way to it is left, and each try is not kept for it",
  async (ground) => {
    const { cluster, prefix } = ground;
    const metrics = new Metrics();
    const link = await Link.open({ servers: [cluster.servers[0]!], clock: systemClock, metrics });
    let peakBytes = 0;
    const looking = setInterval(() => {
      peakBytes = Math.max(peakBytes, process.memoryUsage().arrayBuffers);
    }, 50);
    try {
      const stream = `${prefix}-large`;
      await link.streams.make({ name: stream, subjects: [`${prefix}.large.>`], num_replicas: 3 });
      const payload = Buffer.alloc(MIB);
      cluster.hang(0);
      const beforeBytes = process.memoryUsage().arrayBuffers;
      const published = Array.from({ length: MESSAGES }, (_, i) =>
        link.publish(stream, `${prefix}.large.${i}`, payload, {}, 0),
      );
      const outcomes = await Promise.all(published);
      // On a busy machine a try may be stored whose answer comes too late; the next one meets it.
      assert.ok(outcomes.every((outcome) => outcome.stored || outcome.uncertain));
      const { subjects } = await link.state(stream, `${prefix}.large.>`);
      assert.equal(subjects.length, MESSAGES);
      assert.ok(peakBytes - beforeBytes < 4 * MESSAGES * MIB, `${peakBytes - beforeBytes} bytes were held`);
    } finally {
      clearInterval(looking);
      cluster.wake(0);
      await link.close();
    }
  },
);
