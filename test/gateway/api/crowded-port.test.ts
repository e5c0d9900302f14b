/** Who has more connections than its share keeps nobody out of the HTTP port. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import test from "node:test";
import type { TLSSocket } from "node:tls";
import { openFixture } from "./api-fixture.ts";

/** As many as the gateway takes, and some more. */
const CONNECTIONS = 2_100;
const HEAD = "GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST_HEAD = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

test("a device that holds all the connections that it can keeps nobody out", async (t) => {
  const fixture = await openFixture();
  const sockets: Socket[] = [];
  let adopted = 0;
  const tlsPort = createServer((socket) => {
    adopted++;
    fixture.api.adopt(socket as TLSSocket, { device: "pi-1", serial: "1" });
  });
  t.after(async () => {
    for (const socket of sockets) socket.destroy();
    tlsPort.close();
    await fixture.close();
  });
  await once(tlsPort.listen(0, "127.0.0.1"), "listening");
  const { port } = tlsPort.address() as AddressInfo;
  while (sockets.length < CONNECTIONS) {
    const some = Array.from({ length: 100 }, () => connect(port, "127.0.0.1"));
    sockets.push(...some);
    for (const socket of some) socket.resume().on("error", () => {});
    await Promise.all(some.map((socket) => once(socket, "connect")));
    // The oldest is never idle for long.
    for (const socket of [sockets[0]!, ...some]) socket.write(HEAD);
  }
  while (adopted < CONNECTIONS) await once(tlsPort, "connection");

  // It would try again for ever.
  const signal = AbortSignal.timeout(60_000);
  const answer = await fetch(`${fixture.origin}/metrics`, { signal });
  assert.equal(answer.status, 200);
  assert.match(
    await answer.text(),
    /^headwater_api_connections_ended_total\{whose="beyond its share"\} [1-9]/m,
  );
  // What it had within its share stays.
  const oldest = sockets[0]!;
  let heard = "";
  oldest.on("data", (chunk) => {
    heard += chunk;
  });
  oldest.write(LAST_HEAD);
  await once(oldest, "close");
  assert.match(heard, /HTTP\/1\.1 200 OK/);
});
