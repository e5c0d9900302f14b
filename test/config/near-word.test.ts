import assert from "node:assert/strict";
import test from "node:test";
import { nearWord } from "../../config/near-word.ts";

const KINDS = ["serial", "modbus", "mqtt", "file", "http", "command", "host", "camera"];

test("a slip of the keyboard, other capitals and a word cut short find the word that was meant", () => {
  for (const [written, meant] of [
    ["serail", "serial"],
    ["mqqt", "mqtt"],
    ["mqt", "mqtt"],
    ["MQTT", "mqtt"],
    ["files", "file"],
    ["cam", "camera"],
    ["htpt", "http"],
    ["comand", "command"],
  ] as const)
    assert.equal(nearWord(written, KINDS), meant, written);
});

test("a word that is like none is like none", () => {
  for (const written of ["", "x", "s3", "kafka", "postgres", "a".repeat(10_000)])
    assert.equal(nearWord(written, KINDS), undefined, written);
});

test("of several the nearest is taken", () => {
  assert.equal(nearWord("https", ["http", "https:", "hosts"]), "http");
  assert.equal(nearWord("mqtts", ["mqtt", "mqtts"]), "mqtts");
});
