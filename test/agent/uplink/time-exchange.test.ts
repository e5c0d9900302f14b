import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test, { mock, type TestContext } from "node:test";
import type { MqttClient } from "mqtt";
import { type HeardTime, TimeExchange } from "../../../agent/uplink/time-exchange.ts";

const TRUE_US = Date.UTC(2026, 2, 4) * 1_000;

/** A gateway whose answers take as long as the test says, and a clock that only they turn. */
class Line extends EventEmitter {
  connected = true;
  nowMs = 5_000;
  needed = true;
  readonly asked: number[] = [];
  readonly heard: HeardTime[] = [];
  readonly exchange: TimeExchange;

  constructor(t: TestContext) {
    super();
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout"] });
    t.after(() => mock.timers.reset());
    const clock = { nowUs: () => 0, monotonicMs: () => this.nowMs };
    this.exchange = new TimeExchange("pi-1", clock, {
      needed: () => this.needed,
      heard: (time) => this.heard.push(time),
    });
  }

  get client(): MqttClient {
    return this as unknown as MqttClient;
  }

  publish(topic: string, payload: string): void {
    assert.equal(topic, "headwater/v1/pi-1/time");
    this.asked.push((JSON.parse(payload) as { id: number }).id);
  }

  /** @param saysMs when the gateway read its clock, after the question */
  answer(tookMs: number, saysMs = tookMs / 2, id = this.asked.at(-1)): void {
    const utcUs = TRUE_US + (this.nowMs + saysMs) * 1_000;
    this.nowMs += tookMs;
    this.exchange.answered(this.client, { id, utcUs });
  }

  /** By how much what was heard is off, ms. */
  offMs({ utcUs, atMs }: HeardTime): number {
    return Math.abs(utcUs - atMs * 1_000 - TRUE_US) / 1_000;
  }
}

test("of four answers the quickest counts, and its time is known to half of its round trip", (t) => {
  const line = new Line(t);
  line.exchange.start(line.client);
  for (const tookMs of [80, 30, 200, 90]) line.answer(tookMs, tookMs * 0.9);
  assert.deepEqual(line.asked, [1, 2, 3, 4]);
  const [heard] = line.heard;
  assert.equal(heard?.boundUs, 15_000);
  assert.ok(line.offMs(heard) <= 15);
});

test("a busy gateway is asked on until an answer is quick, or for six seconds", (t) => {
  const busy = new Line(t);
  busy.exchange.start(busy.client);
  for (let i = 0; i < 5; i++) busy.answer(900);
  assert.equal(busy.heard.length, 0);
  busy.answer(100);
  assert.equal(busy.heard[0]?.boundUs, 50_000);
  const slow = new Line(t);
  slow.exchange.start(slow.client);
  while (slow.heard.length === 0) slow.answer(1_000, 900);
  assert.equal(slow.asked.length, 6);
  assert.ok(slow.heard[0]!.boundUs === 500_000 && slow.offMs(slow.heard[0]!) <= 500);
});

test("a lost answer is asked for again, ever more seldom, and an answer that comes too late counts nothing", (t) => {
  const line = new Line(t);
  line.exchange.start(line.client);
  mock.timers.tick(5_000);
  assert.deepEqual(line.asked, [1, 2]);
  mock.timers.tick(9_999);
  assert.equal(line.asked.length, 2);
  mock.timers.tick(1);
  assert.equal(line.asked.length, 3);
  line.answer(10, 5, 2);
  line.answer(10, 5, 0);
  assert.equal(line.asked.length, 3);
  for (let i = 0; i < 4; i++) line.answer(10);
  assert.equal(line.heard.length, 1);
  // A connection that is gone asks nothing more.
  line.emit("close");
  mock.timers.tick(1e9);
  assert.equal(line.asked.length, 6);
});

test("a connection that lasts is asked again when the time is needed once more", (t) => {
  const line = new Line(t);
  line.exchange.start(line.client);
  for (let i = 0; i < 4; i++) line.answer(10);
  line.needed = false;
  mock.timers.tick(300_000);
  assert.equal(line.asked.length, 4);
  line.needed = true;
  mock.timers.tick(60_000);
  line.nowMs += 360_000;
  line.answer(360_040);
  for (let i = 0; i < 3; i++) line.answer(20);
  assert.equal(line.heard.length, 2);
  assert.equal(line.heard[1]!.boundUs, 10_000);
});

test("what no gateway says is no time", (t) => {
  const line = new Line(t);
  line.exchange.answered(line.client, { id: 0, utcUs: TRUE_US });
  line.exchange.start(line.client);
  for (const utcUs of [undefined, "1", -1, 0, Number.NaN, 2 ** 60, {}])
    line.exchange.answered(line.client, { id: 1, utcUs });
  assert.deepEqual([line.asked, line.heard], [[1], []]);
});
