import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { fixedFolder, isPattern, matchingPaths, nameMatcher } from "../../../../agent/sources/tail/glob.ts";
import { rotationBase } from "../../../../agent/sources/tail/rotated-files.ts";
import { temporaryFolder } from "../../buffer/records/buffer-fixture.ts";

test("names match as in a shell", () => {
  const cases: [string, string[], string[]][] = [
    ["*.log", ["a.log", "a.b.log"], [".log", ".a.log", "a.log.1", "alog"]],
    ["app-?.log", ["app-1.log", "app-é.log"], ["app-.log", "app-12.log"]],
    ["[a-c]x[!0-9]", ["axb", "cx-"], ["dxb", "ax1", "ax"]],
    ["*a*b*", ["ab", "xaybz", "aab"], ["ba", "a"]],
    [".*", [".hidden"], ["shown"]],
    ["a[b", ["a[b"], ["ab"]],
    ["[*]", ["*"], ["a"]],
  ];
  for (const [pattern, good, bad] of cases) {
    const matches = nameMatcher(pattern);
    for (const name of good) assert.ok(matches(name), `${pattern} ${name}`);
    for (const name of bad) assert.ok(!matches(name), `${pattern} ${name}`);
  }
});

test("a pattern agrees with the regular expression that says the same", () => {
  const piece = fc.constantFrom("a", "b", "*", "?", "[ab]", "[!a]");
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), fc.stringMatching(/^[abc]{0,10}$/), (pieces, name) => {
      const source = pieces.map((one) => one.replace("*", ".*").replace("?", ".").replace("[!a]", "[^a]"));
      assert.equal(nameMatcher(pieces.join(""))(name), new RegExp(`^${source.join("")}$`, "s").test(name));
    }),
    { numRuns: 2_000 },
  );
});

test("no pattern and no name takes long or throws", () => {
  const matches = nameMatcher(`${"*a".repeat(200)}b`);
  assert.equal(matches("a".repeat(4_000)), false);
  fc.assert(
    fc.property(fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (pattern, name) => {
      assert.equal(typeof nameMatcher(pattern)(name), "boolean");
    }),
  );
});

test("files are found in the folders that match, in order, and no more than asked for", async (t) => {
  const folder = await temporaryFolder(t);
  for (const name of ["web", "db", "empty"]) await mkdir(join(folder, name));
  for (const path of ["web/app.log", "web/app.log.1", "db/app.log", "db/note.txt", "top.log"])
    await writeFile(join(folder, path), "");
  await mkdir(join(folder, "web/dir.log"));
  await symlink(join(folder, "top.log"), join(folder, "db/link.log"));
  const found = async (pattern: string, max = 100) => {
    const { paths, cut } = await matchingPaths(join(folder, pattern), max);
    return [paths.map((path) => relative(folder, path)), cut];
  };
  assert.deepEqual(await found("*/*.log"), [["db/app.log", "db/link.log", "web/app.log"], false]);
  assert.deepEqual(await found("*.log"), [["top.log"], false]);
  assert.deepEqual(await found("none/*.log"), [[], false]);
  assert.deepEqual(await found("*/app.log", 1), [["db/app.log"], true]);
  assert.equal(fixedFolder("/var/log/*/app.log"), "/var/log");
  assert.equal(fixedFolder("/*.log"), "/");
  assert.ok(!isPattern("/var/log/app.log") && isPattern("/var/log/app?.log"));
});

test("a name that adds a number or a date to one that is followed is its rotation", () => {
  const followed = (path: string): boolean => ["/l/app.log", "/l/web", "/l/app"].includes(path);
  for (const name of [
    "app.log.1",
    "app.log-20261121",
    "app.log-2026-11-21",
    "app.log.old",
    "app.log~",
    "app-20261121.log",
    "app-2026-11-21T10:11:12Z.log",
    "app.1.log",
  ])
    assert.equal(rotationBase(`/l/${name}`, followed), "/l/app.log", name);
  for (const name of [
    "app.log",
    "app-2.log",
    "db.log.1",
    "web.log",
    "app.log.txt",
    "db-20261121.log",
    "20261121.log",
  ])
    assert.equal(rotationBase(`/l/${name}`, followed), undefined, name);
});
