/** Clients that offer h2c with a request over HTTP/1.1 are answered as if they had not. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import test from "node:test";
import { promisify } from "node:util";
import { KEY, openFixture } from "../api-fixture.ts";
import { sign } from "../sign.ts";

const run = promisify(execFile);
const OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";

async function signedList(port: number, body: string): Promise<string> {
  const headers = await sign({
    headers: {
      host: `127.0.0.1:${port}`,
      "content-type": "application/x-amz-json-1.1",
      "x-amz-target": "Kinesis_20131202.ListStreams",
    },
    body,
  });
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST / HTTP/1.1\r\n${OFFER}${lines.join("")}content-length: ${body.length}\r\n\r\n`;
}

test("a signed call that offers h2c is answered, its body at once or later, or in pieces", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const body = JSON.stringify({ Limit: 7 });
  const head = await signedList(fixture.port, body);
  const middle = head.indexOf("HTTP2-Settings:") + 20;
  for (const pieces of [[head + body], [head, body], [head + body.slice(0, 3), body.slice(3)]]) {
    const socket = connect(fixture.port, "127.0.0.1");
    socket.setEncoding("latin1").setNoDelay(true);
    let answer = "";
    socket.on("data", (text) => {
      answer += text;
    });
    // The first piece comes in two, as the head itself may.
    for (const piece of [pieces[0]!.slice(0, middle), pieces[0]!.slice(middle), ...pieces.slice(1)]) {
      await new Promise((resolve) => socket.write(piece, "latin1", resolve));
    }
    await once(socket, "close");
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /"StreamNames":\[\]/);
    assert.equal(answer.match(/HTTP\/1\.1/g)?.length, 1);
  }
});

test("one that is signed wrongly, or names another host, is told so", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const head = await signedList(fixture.port, "{}");
  const wrong = head.replace(/Signature=[0-9a-f]{8}/i, "Signature=00000000");
  for (const [request, status] of [
    [`${wrong}{}`, 400],
    [`GET / HTTP/1.1\r\nHost: elsewhere\r\n${OFFER}\r\n`, 403],
  ] as const) {
    const socket = connect(fixture.port, "127.0.0.1");
    socket.end(request, "latin1");
    const [answer] = (await once(socket, "data")) as [Buffer];
    assert.match(answer.toString(), new RegExp(`^HTTP/1\\.1 ${status} `));
    socket.destroy();
  }
});

test("curl, which signs and offers by itself, is answered", async (t) => {
  const fixture = await openFixture();
  t.after(() => fixture.close());
  const signer = ["--aws-sigv4", "aws:amz:us-east-1:kinesis", "--user", `${KEY.id}:${KEY.secret}`];
  const call = ["-H", "x-amz-target: Kinesis_20131202.ListStreams"];
  const content = ["-H", "content-type: application/x-amz-json-1.1", "-d", "{}"];
  try {
    const { stdout } = await run("curl", ["-sS", "--http2", ...signer, ...call, ...content, fixture.origin]);
    assert.match(stdout, /"StreamNames":\[\]/);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    t.skip("there is no curl");
  }
});
