import assert from "node:assert/strict";
import test from "node:test";
import { natsMissing } from "../../../../support/nats-cluster.ts";
import { startSingleNode } from "./single-node.ts";

test("a gateway that the nodes refuse for a while is served again when they take it back", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const node = await startSingleNode();
  const link = await node.link();
  try {
    await link.streams.make({ name: "S", subjects: ["s"] });
    await link.publish("S", "s", Buffer.from("x"), {}, 0);
    await node.run("authorization { token: other }");
    // It was refused more than once.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await node.run();
    assert.deepEqual(await link.publish("S", "s", Buffer.from("y"), {}, 1), { stored: true, sequence: 2 });
    // It closes also while it is refused.
    await node.run("authorization { token: other }");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const waiting = link.publish("S", "s", Buffer.from("z"), {}, 2);
    const refused = assert.rejects(waiting, { code: "STREAMS_CLOSED" });
    await link.close();
    await refused;
  } finally {
    await link.close();
    await node.stop();
  }
});
