/** The reference says of every operation that the SDK knows whether it is there, and says so truly. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import * as sdk from "@aws-sdk/client-kinesis";
import { openFixture } from "./api-fixture.ts";
import { call } from "./sign.ts";

test("each operation of the SDK is offered or refused as docs/reference/kinesis-api.md says", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const text = await readFile("docs/reference/kinesis-api.md", "utf8");
  const [offeredText, refusedText] = text.split("### Not offered");
  const rows = (part: string): [string, string][] =>
    [...part.matchAll(/^\| ([A-Z]\w+) \| (.+) \|$/gm)].map((match) => [match[1]!, match[2]!]);
  const offered = new Map(rows(offeredText!));
  const refused = new Map(rows(refusedText!.split("\n## ")[0]!));
  const names = Object.keys(sdk)
    .filter((name) => /^[A-Z]\w+Command$/.test(name) && name !== "$Command")
    .map((name) => name.slice(0, -"Command".length));
  assert.ok(names.length > 30);
  for (const name of names) {
    const answer = await call(fixture.origin, name, "{}");
    const isRefused = answer.message.startsWith(`${name} is not offered by this gateway: `);
    if (isRefused) assert.ok(answer.message.includes(refused.get(name)!), `the reason against ${name}`);
    assert.equal(isRefused, refused.has(name), `${name} in the list of what is not offered`);
    assert.equal(!isRefused, offered.has(name), `${name} in the table of operations`);
    assert.ok(!answer.message.includes("must name an operation"), `${name} is known`);
  }
});
