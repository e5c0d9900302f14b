/** What of a query makes it a signature, as AWS answers it (kinesalite's tests, which ran against AWS, have the same cases). */
import assert from "node:assert/strict";
import test from "node:test";
import { KEY, openFixture } from "./api-fixture.ts";
import { presign, sign } from "./sign.ts";

const body = "{}";

test("a query without X-Amz-Algorithm is no signature, whatever else of one it has", async (t) => {
  const fixture = await openFixture();
  t.after(fixture.close);
  const { port, origin } = fixture;
  const plain = {
    host: `127.0.0.1:${port}`,
    "content-type": "application/x-amz-json-1.1",
    "x-amz-target": "Kinesis_20131202.ListStreams",
  };
  const ask = async (query: Record<string, string>, headers: Record<string, string>): Promise<string> => {
    const { host: _, ...sent } = headers;
    const path = `${origin}/?${new URLSearchParams(query)}`;
    const answer = await fetch(path, { method: "POST", headers: sent, body });
    const { __type, message } = (await answer.json()) as { __type?: string; message?: string };
    assert.equal(answer.status, __type === undefined ? 200 : 400);
    return __type === undefined ? "ok" : `${__type}: ${message}`;
  };
  const missing = "MissingAuthenticationTokenException: Missing Authentication Token";
  const whole = (await presign({ headers: plain, body, key: KEY }, 60)) as Record<string, string>;
  assert.equal(await ask(whole, plain), "ok");
  const { "X-Amz-Algorithm": _, ...without } = whole;
  assert.equal(await ask(without, plain), missing);
  const some = {
    "X-Amz-Credential": "a",
    "X-Amz-Signature": "b",
    "X-Amz-SignedHeaders": "c",
    "X-Amz-Date": "d",
  };
  assert.equal(await ask(some, plain), missing);
  assert.match(await ask({ ...without, "X-Amz-Algorithm": "" }, plain), /^IncompleteSignatureException: /);
  assert.match(await ask({ "X-Amz-Algorithm": "" }, plain), /^IncompleteSignatureException: .*'X-Amz-Date'/);
  const signed = await sign({ headers: plain, body });
  assert.match(await ask({ "X-Amz-Algorithm": "" }, signed), /^InvalidSignatureException: Found both/);
});
