import assert from "node:assert/strict";
import test from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Link } from "../../../../../../gateway/streams/stores/jetstream/cluster/link.ts";
import { systemClock } from "../../../../../../runtime/clock.ts";
import { Metrics } from "../../../../../../runtime/metrics.ts";
import { natsMissing, startNatsCluster } from "../../../../../support/nats-cluster.ts";

test("a message that is only on its way is not taken for stored, though it is called a duplicate", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  const link = await Link.open({ servers, clock: systemClock, metrics: new Metrics() });
  try {
    // Answers as nats-server 2.10 does while it waits for a majority, then as any.
    const ids: string[] = [];
    nc.subscribe("s", {
      callback: (_, message) => {
        const isFirst = ids.push(message.headers!.get("Nats-Msg-Id")) === 1;
        message.respond(
          JSON.stringify({ stream: "S", ...(isFirst ? { seq: 0, duplicate: true } : { seq: 7 }) }),
        );
      },
    });
    await nc.flush();
    const outcome = await link.publish("S", "s", Buffer.from("x"), {}, 0, "id");
    assert.deepEqual(outcome, { stored: true, sequence: 7, id: "id" });
    assert.deepEqual(ids, ["id", "id"]);
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});

test("an id that stays on its way is left for another one, and that later", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  let nowMs = 0;
  const clock = { nowUs: systemClock.nowUs, monotonicMs: () => nowMs };
  const link = await Link.open({ servers, clock, metrics: new Metrics() });
  try {
    // As nats-server 2.10 says it, and as 2.11 does.
    const onTheirWay = [
      { seq: 0, duplicate: true },
      { seq: 0, error: { code: 409, err_code: 10_158, description: "duplicate message id is in process" } },
    ];
    for (const [i, said] of onTheirWay.entries()) {
      for (const stored of [true, false]) {
        const subject = `s.${i}.${stored}`;
        const ids: string[] = [];
        nc.subscribe(subject, {
          callback: (_, message) => {
            const id = message.headers!.get("Nats-Msg-Id");
            ids.push(id);
            const refused = { error: { code: 400, err_code: 10_071, description: "wrong last sequence: 7" } };
            message.respond(JSON.stringify(id !== "id+2" ? said : stored ? { seq: 7 } : refused));
            nowMs += 4_000;
          },
        });
        await nc.flush();
        const outcome = await link.publish("S", subject, Buffer.from("x"), {}, 0, "id");
        // What stands in the way may be stored under an id that was left.
        assert.deepEqual(
          outcome,
          stored ? { stored: true, sequence: 7, id: "id+2" } : { stored: false, uncertain: true },
        );
        assert.deepEqual(ids, ["id", "id", "id", "id+1", "id+1", "id+1", "id+1", "id+2"]);
      }
    }
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});

test("where a replica gives no answer the leader is asked, and asked first for a while", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  let nowMs = 0;
  const clock = { nowUs: systemClock.nowUs, monotonicMs: () => nowMs };
  const link = await Link.open({ servers, clock, metrics: new Metrics() });
  try {
    const manager = await jetstreamManager(nc);
    await manager.streams.add({ name: "S", subjects: ["s"] });
    await link.publish("S", "s", Buffer.from("x"), {}, 0);
    let asked = 0;
    // It takes questions as a node does that hangs.
    nc.subscribe("$JS.API.DIRECT.GET.S", { callback: () => void asked++ });
    await nc.flush();
    const get = async (): Promise<string> => Buffer.from((await link.get("S", 1))!.payload).toString();
    assert.equal(await get(), "x");
    assert.equal(asked, 1);
    assert.equal(await get(), "x");
    assert.equal(asked, 1);
    assert.equal(await link.get("S", 2), undefined);
    nowMs += 10_000;
    assert.equal(await get(), "x");
    assert.equal(asked, 2);
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});

test("gets that wait for their turn at a node that hangs do not hold a close up", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const cluster = await startNatsCluster(1);
  const link = await Link.open({ servers: cluster.servers, clock: systemClock, metrics: new Metrics() });
  try {
    cluster.hang(0);
    const gets = Array.from({ length: 30 }, (_, i) => link.leaderGet("S", { seq: 1_000 * i }));
    const since = performance.now();
    link.abort();
    for (const outcome of await Promise.allSettled(gets)) {
      assert.equal(outcome.status === "rejected" && outcome.reason.code, "STREAMS_CLOSED");
    }
    // Each try gets two seconds.
    const ms = Math.round(performance.now() - since);
    assert.ok(ms < 6_000, `after ${ms} ms`);
  } finally {
    cluster.wake(0);
    await link.close();
    await cluster.stop();
  }
});

test("that a stream is not there is believed only when it is said for seconds", {
  skip: natsMissing() ?? false,
  timeout: 60_000,
}, async () => {
  const { servers, stop } = await startNatsCluster(1);
  const nc = await connect({ servers });
  let nowMs = 0;
  const clock = { nowUs: systemClock.nowUs, monotonicMs: () => nowMs };
  const link = await Link.open({ servers, clock, metrics: new Metrics() });
  try {
    const manager = await jetstreamManager(nc);
    // As a leader that lags behind its own log: it knows nothing of the stream until it was asked twice.
    const questions = {
      "STREAM.INFO": (name: string) => link.state(name).then(({ lastSequence }) => lastSequence),
      "STREAM.MSG.GET": async (name: string) => (await link.leaderGet(name, { seq: 1 }))?.sequence,
      "STREAM.UPDATE": (name: string) => link.streams.update(name, { max_msgs: 9 }).then(() => undefined),
    };
    for (const [question, ask] of Object.entries(questions)) {
      const name = question.replaceAll(".", "-");
      let asked = 0;
      let making: Promise<unknown> | undefined;
      // An update looks before it changes.
      const heard = question === "STREAM.UPDATE" ? "STREAM.INFO" : question;
      const listening = nc.subscribe(`$JS.API.${heard}.${name}`, {
        callback: () => {
          if (++asked === 2) making = manager.streams.add({ name, subjects: [name] });
        },
      });
      await nc.flush();
      assert.equal(await ask(name), question === "STREAM.INFO" ? 0 : undefined);
      assert.ok(asked >= 2, `asked ${asked} times`);
      listening.unsubscribe();
      await making;
    }
    let asked = 0;
    nc.subscribe("$JS.API.STREAM.*.gone", { callback: () => void asked++ });
    nc.subscribe("$JS.API.STREAM.MSG.GET.gone", { callback: () => void asked++ });
    await nc.flush();
    for (const ask of Object.values(questions)) {
      const from = asked;
      const refused = assert.rejects(ask("gone"), /not found|there is no stream/);
      while (asked < from + 2) await new Promise((resolve) => setImmediate(resolve));
      nowMs += 6_000;
      await refused;
    }
    nc.subscribe("$JS.API.STREAM.DELETE.gone", {
      callback: () => {
        nowMs += 6_000;
      },
    });
    await nc.flush();
    await link.streams.remove("gone");
  } finally {
    await link.close();
    await nc.close();
    await stop();
  }
});
