/** Tokens and join requests: what comes back is what was put in, and what is neither is refused quietly. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  formatToken,
  JoinTokenError,
  MAX_JOIN_BYTES,
  parseJoinRequest,
  parseRenewal,
  parseToken,
} from "../../protocol/joining.ts";

const name = fc.stringMatching(/^[A-Za-z0-9_.-]{1,64}$/);
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length }).map(Buffer.from);

test("a token comes back as it was made, whatever dots its device's name has", () => {
  fc.assert(
    fc.property(name, bytes(20), fc.option(bytes(32), { nil: undefined }), (device, secret, fingerprint) => {
      assert.deepEqual(parseToken(formatToken({ device, secret, fingerprint })), {
        device,
        secret,
        fingerprint,
      });
    }),
  );
});

test("what is no token is refused, and never repeated", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `hw1.pi.${text}`),
      ),
      (text) => {
        try {
          parseToken(text);
        } catch (error) {
          assert.ok(error instanceof JoinTokenError);
          assert.ok(text.length < 12 || !error.message.includes(text));
        }
      },
    ),
  );
});

test("any bytes as a join request are parsed or refused, and never throw", () => {
  const fields = fc.record({
    version: fc.oneof(fc.constant(1), fc.anything()),
    secret: fc.oneof(
      bytes(20).map((secret) => secret.toString("base64url")),
      fc.anything(),
    ),
    request: fc.oneof(fc.base64String(), fc.anything()),
  });
  const json = fc.oneof(fields, fc.anything()).map((value) => {
    try {
      return Buffer.from(JSON.stringify(value) ?? "");
    } catch {
      return Buffer.alloc(0);
    }
  });
  fc.assert(
    fc.property(fc.oneof(json, fc.uint8Array({ maxLength: 200 })), (body) => {
      const asked = parseJoinRequest(body);
      if (asked !== undefined) {
        assert.equal(asked.secret.length, 20);
        assert.ok(asked.request.length > 0);
      }
      parseRenewal(body);
    }),
    { numRuns: 2_000 },
  );
  assert.equal(parseJoinRequest(Buffer.alloc(MAX_JOIN_BYTES + 1, 0x20)), undefined);
});
