import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { allows } from "../../../../gateway/api/signature/access.ts";
import { KEY } from "../api-fixture.ts";

const may = (allow: string[], action: string): boolean => allows({ ...KEY, allow }, action);

test("an allow list names actions, with * for any characters", () => {
  assert.ok(may(["*"], "kinesis:PutRecords"));
  assert.ok(may(["kinesis:PutRecords"], "kinesis:PutRecords"));
  assert.ok(may(["console", "kinesis:Get*"], "kinesis:GetRecords"));
  assert.ok(may(["kinesis:*Record*"], "kinesis:PutRecord"));
  assert.ok(!may([], "console"));
  assert.ok(!may(["kinesis:PutRecord"], "kinesis:PutRecords"));
  assert.ok(!may(["kinesis:Get*"], "kinesis:PutRecords"));
  assert.ok(!may(["kinesis:Get"], "kinesis:GetRecords"));
  assert.ok(!may(["Kinesis:*"], "kinesis:GetRecords"));
  assert.ok(!may(["*Records*Records"], "kinesis:GetRecords"));
});

test("a pattern matches as the regular expression of the same meaning does", () => {
  const pattern = fc.stringMatching(/^[ab*]{0,8}$/);
  const action = fc.stringMatching(/^[ab]{0,8}$/);
  fc.assert(
    fc.property(pattern, action, (allowed, asked) => {
      const same = new RegExp(`^${allowed.replaceAll("*", ".*")}$`);
      assert.equal(may([allowed], asked), same.test(asked));
    }),
    { numRuns: 2_000 },
  );
});
