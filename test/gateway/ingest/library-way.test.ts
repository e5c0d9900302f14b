/** The plain way beside the publish lane: every client is left to the broker library, as where its internals are not as expected. */
import assert from "node:assert/strict";
import test, { type TestContext } from "node:test";
import { PublishLane } from "../../../gateway/ingest/publish-lane.ts";
import { LogFullError } from "../../../gateway/streams/streams.ts";
import { openDoor, RawSensor, stored } from "./door.ts";

const TOPIC = "plant/a/temperature";

function withoutLane(context: TestContext): void {
  context.mock.method(PublishLane.prototype, "attach", () => undefined);
}

test("publishes of every QoS are stored and answered in their order", async (context) => {
  withoutLane(context);
  const door = await openDoor(context);
  const client = await new RawSensor(door.port).connect("plain");
  client.socket.cork();
  client.publish(0, TOPIC, "0", { qos: 0 });
  client.publish(40, TOPIC, "1");
  client.publish(41, TOPIC, "2", { qos: 2 });
  client.publish(42, "nowhere", "3");
  client.publish(43, TOPIC, "4");
  client.socket.uncork();
  const answers: string[] = [];
  for (let i = 0; i < 4; i++) {
    const { cmd, messageId } = await client.next();
    answers.push(`${cmd} ${messageId}`);
  }
  assert.deepEqual(answers.sort(), ["puback 40", "puback 42", "puback 43", "pubrec 41"]);
  assert.deepEqual(await stored(door.streams), ["0", "1", "2", "4"]);
  assert.match(door.ingest.quarantine().lastReason ?? "", /no rule/);
});

test("a resent publish is stored once", async (context) => {
  withoutLane(context);
  const door = await openDoor(context);
  for (const texts of [["a"], ["a", "b"]]) {
    const client = await new RawSensor(door.port).connect("plain");
    for (const [i, text] of texts.entries()) await client.acknowledged(70 + i, TOPIC, text);
    await client.vanish();
  }
  assert.deepEqual(await stored(door.streams), ["a", "b"]);
});

test("what cannot be stored gets no answer, and its connection ends", async (context) => {
  withoutLane(context);
  const door = await openDoor(context, {
    wrap: (real) =>
      new Proxy(real, {
        get: (target, name) =>
          name === "appendPublishes"
            ? () => Promise.reject(new LogFullError("sensors"))
            : Reflect.get(target, name)?.bind(target),
      }),
  });
  const client = await new RawSensor(door.port).connect("plain");
  client.publish(40, TOPIC, "1");
  await assert.rejects(client.next(), /ended/);
});

test("a packet above the limit ends its connection", async (context) => {
  withoutLane(context);
  const door = await openDoor(context);
  const client = await new RawSensor(door.port).connect("plain");
  client.socket.write(Buffer.from([0x32, 0xff, 0xff, 0xff, 0x7f]));
  await client.ended;
});
