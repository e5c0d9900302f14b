import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  answerChallenge,
  formatChallenge,
  parseAnswer,
  parseChallenge,
  verifyAnswer,
} from "../../../protocol/rtsp/digest.ts";

test("the example of RFC 2617 §3.5 gives its response", () => {
  const header =
    'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"';
  const challenge = parseChallenge(header)!;
  assert.equal(challenge.qopAuth, true);
  const credentials = { username: "Mufasa", password: "Circle Of Life" };
  const answer = answerChallenge(challenge, credentials, "GET", "/dir/index.html", 1, "0a4f113b");
  assert.match(answer, /response="6629fae49393a05397450978507c4ef1"/);
  assert.match(answer, /opaque="5ccc069c403ebaf9f0171e9517f40e41"/);
});

test("of several challenges the one with Digest and MD5 is taken", () => {
  const basic = 'Basic realm="cam"';
  const sha = 'Digest realm="cam", nonce="a", algorithm=SHA-256';
  const md5 = 'Digest realm="cam", nonce="b", stale=TRUE';
  assert.equal(parseChallenge([basic, sha, md5].join(", "))?.nonce, "b");
  assert.equal(parseChallenge(`${md5}, ${basic}`)?.stale, true);
  assert.equal(parseChallenge(basic), undefined);
});

const text = fc.string({ minLength: 1, maxLength: 20 }).filter((value) => !/[\r\n]/.test(value));

test("only the right password, user, method and address are accepted, with qop and without", () => {
  const uri = "rtsp://h/yard";
  fc.assert(
    fc.property(text, text, text, fc.boolean(), (username, password, realm, qopAuth) => {
      const challenge = parseChallenge(formatChallenge(realm, "abc"))!;
      assert.equal(challenge.realm, realm);
      const header = answerChallenge({ ...challenge, qopAuth }, { username, password }, "DESCRIBE", uri, 3);
      const answer = parseAnswer(header)!;
      assert.equal(answer.username, username);
      const check = (secret: string | undefined, method = "DESCRIBE", nonce = "abc", wanted = uri): boolean =>
        verifyAnswer(answer, { realm, nonce, password: secret }, method, (given) => given === wanted);
      assert.equal(check(password), true);
      assert.equal(check(`${password}x`), false);
      assert.equal(check(undefined), false);
      assert.equal(check(password, "ANNOUNCE"), false);
      assert.equal(check(password, "DESCRIBE", "abd"), false);
      assert.equal(check(password, "DESCRIBE", "abc", "rtsp://h/other"), false);
    }),
  );
});

test("hostile headers never throw", () => {
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom("Digest ", 'realm="', '"', "\\", ",", "=", "nonce=a", "response="),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
      const header = `Digest ${pieces.join("")}`;
      parseChallenge(header);
      const answer = parseAnswer(header);
      if (answer !== undefined) {
        assert.equal(
          verifyAnswer(answer, { realm: "r", nonce: "n", password: "p" }, "PLAY", () => true),
          false,
        );
      }
    }),
    { numRuns: 500 },
  );
});
