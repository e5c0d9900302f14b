/** What the soak calls lost and doubled. */
import assert from "node:assert/strict";
import test from "node:test";
import { Ledger, Producer } from "../../../bench/soak/ledger.ts";

function sent(ledger: Ledger, count: number): Buffer[] {
  const producer = new Producer(ledger, "steady", "a");
  const records = Array.from({ length: count }, () => producer.next(100));
  producer.acknowledged();
  return records;
}

test("who reads all in order finds nothing", () => {
  const ledger = new Ledger();
  const view = ledger.view("reader", "steady", true);
  for (const record of sent(ledger, 5)) view.take(record);
  ledger.close();
  assert.deepEqual(
    [ledger.lost, ledger.doubled, ledger.acknowledgedRecords, ledger.readRecords],
    [0, 0, 5, 5],
  );
});

test("a number that is left out is lost, also the last", () => {
  const ledger = new Ledger();
  const view = ledger.view("reader", "steady", true);
  const records = sent(ledger, 6);
  for (const at of [0, 1, 3]) view.take(records[at]!);
  assert.equal(ledger.lost, 1);
  assert.equal(ledger.missing(), 2);
  ledger.close();
  assert.equal(ledger.lost, 3);
});

test("a number that comes again is doubled", () => {
  const ledger = new Ledger();
  const view = ledger.view("reader", "steady", true);
  const records = sent(ledger, 3);
  for (const at of [0, 1, 1, 2, 0]) view.take(records[at]!);
  assert.deepEqual([ledger.lost, ledger.doubled], [0, 2]);
});

test("one who passes by is asked for nothing before the first that it saw, and nothing after the last", () => {
  const ledger = new Ledger();
  const view = ledger.passingView("passer-by", "steady");
  const records = sent(ledger, 6);
  for (const at of [2, 3]) view.take(records[at]!);
  assert.deepEqual([ledger.lost, ledger.doubled, ledger.missing()], [0, 0, 0]);
  view.take(records[5]!);
  view.take(records[5]!);
  assert.deepEqual([ledger.lost, ledger.doubled], [1, 1]);
});

test("after a failure a producer goes on under another name", () => {
  const ledger = new Ledger();
  const producer = new Producer(ledger, "steady", "a");
  producer.next(100);
  producer.failed();
  const record = producer.next(100);
  producer.acknowledged();
  const view = ledger.view("reader", "steady", true);
  view.take(record);
  ledger.close();
  assert.deepEqual([ledger.lost, ledger.doubled, ledger.readRecords], [0, 0, 1]);
});
