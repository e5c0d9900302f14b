import assert from "node:assert/strict";
import test from "node:test";
import { agentConfig } from "../../config/agent-config.ts";
import { parseConfig } from "../../config/loader.ts";

function problems(sources: string): string {
  try {
    parseConfig("agent.yaml", `device: a\nsources: [${sources}]`, agentConfig, {});
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

test("what contradicts itself in a source is refused with its path and what would be accepted", () => {
  const cases: [string, RegExp][] = [
    [
      "{name: a, type: host, shape: {sensor: 'a/#/b'}}",
      /sources\[0\]\.shape\.sensor: # may only be the last/,
    ],
    ["{name: a, type: host, shape: {sensor: 'a/{b c}'}}", /shape\.sensor: "\{b c\}" is neither \{name\}/],
    ["{name: a, type: host, shape: {sensor: '{b}/{b}'}}", /shape\.sensor: \{b\} is there twice/],
    ["{name: a, type: host, shape: {sample: {}}}", /shape\.sample: needs everySeconds or oneIn/],
    ["{name: a, type: host, shape: {deadband: {fields: {}}}}", /deadband\.fields: names no field; \*/],
    ["{name: a, type: host, shape: {keep: [a], drop: [b]}}", /shape\.drop: keep says already/],
    ["{name: a, type: mqtt, topics: ['a/#/b']}", /sources\[0\]\.topics\[0\]: # may only be/],
    ["{name: a, type: mqtt, topics: [a, 'b+']}", /sources\[0\]\.topics\[1\]: # may only be/],
    ["{name: a, type: mqtt, discoveryPrefix: 'ha/#'}", /discoveryPrefix: is a topic without/],
    ["{name: a, type: file, path: '/l/**/x.log'}", /sources\[0\]\.path: \*\* is not known; write a \*/],
    [
      "{name: a, type: file, path: /l, csv: {}}",
      /sources\[0\]\.csv: is for format: csv, and the format is text/,
    ],
    ["{name: a, type: file, path: /l, format: csv, csv: {columns: [a, a]}}", /csv\.columns: two have/],
    ["{name: a, type: serial, path: /t, cobs: {}}", /cobs: is for format: cobs/],
    ["{name: a, type: serial, path: /t, format: cobs, cobs: {layout: ['a:u8']}}", /layout: is for payload/],
    ["{name: a, type: command, command: [x], env: {'A=B': c}}", /env\.A=B: is no name of a variable/],
    [
      "{name: a, type: modbus, path: /t, registers: [{field: t, address: 65535, as: u32}]}",
      /registers\[0\]\.address: a u32 takes 2/,
    ],
    [
      "{name: a, type: modbus, path: /t, registers: [{field: t, address: 1}, {field: t, address: 2}]}",
      /registers\[1\]\.field: t is there twice/,
    ],
    ["{name: a, type: http, port: 90}, {name: b, type: http, port: 90}", /sources\[1\]\.port: is what a has/],
    ["{name: a, type: serial, path: /t}, {name: b, type: serial, path: /t}", /sources\[1\]\.path: is what a/],
  ];
  for (const [text, expected] of cases) assert.match(problems(text), expected, text);
});

test("what is meant as it stands is taken", () => {
  for (const text of [
    "{name: a, type: host, shape: {sensor: 'farm/{site}/+/{sensor}/#', sample: {oneIn: 2}}}",
    "{name: a, type: mqtt, topics: ['#', 'a/+/b', '+', '$SYS/#']}",
    "{name: a, type: http, port: 0}, {name: b, type: http, port: 0}",
    "{name: a, type: http, port: 90}, {name: b, type: mqtt, port: 91}",
    "{name: a, type: file, path: '/var/log/*/app-?.log', format: csv, csv: {delimiter: ';'}}",
    "{name: a, type: serial, path: /t, format: cobs, cobs: {payload: layout, layout: ['a:u8']}}",
    "{name: a, type: modbus, path: /t, registers: [{field: t, unit: 1, address: 1}, {field: t, unit: 2, address: 1}]}",
    "{name: a, type: modbus, path: /t, registers: [{field: t, table: coil, address: 65535}]}",
  ])
    assert.equal(problems(text), "", text);
});
