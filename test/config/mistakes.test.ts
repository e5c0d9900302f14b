/** What is said of a mistake: its line, its path, what is there, what would be accepted; and nothing secret. */
import assert from "node:assert/strict";
import test from "node:test";
import { agentConfig } from "../../config/agent-config.ts";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { parseConfig } from "../../config/loader.ts";
import { problems } from "./problems.ts";

test("an unknown key is refused with its name and those that there are", () => {
  assert.match(
    problems("sterams: []", gatewayConfig),
    /line 1: \(top\): unknown key "sterams"; there are dataDir, http, .*; did you mean streams\?$/,
  );
  assert.match(
    problems("accessKeys: [{id: AKIA1234, secret: 0123456789abcdef, alow: []}]", gatewayConfig),
    /accessKeys\[0\]: unknown key "alow"; there are id, secret, allow; did you mean allow\?$/,
  );
  // Of the kind of source that it is.
  assert.match(
    problems("device: pi\nsources: [{name: a, type: serial, path: /dev/ttyS0, boud: 9600}]", agentConfig),
    /sources\[0\]: unknown key "boud"; there are (?!.*username).*baud/,
  );
});

test("a bad value is refused with its path and what would be accepted", () => {
  assert.match(
    problems("streams: [{name: a}, {name: 'b c'}]", gatewayConfig),
    /streams\[1\]\.name: 1 to 128 letters/,
  );
  assert.match(
    problems("device: pi\nbuffer: {maxBytes: lots}", agentConfig),
    /buffer\.maxBytes: "lots" is no size/,
  );
});

test("a kind that there is none of is told with those that there are, and the one that is like it", () => {
  const kinds = "serial, modbus, mqtt, file, http, command, host or camera";
  for (const [kind, expected] of [
    ["serail", `is "serail"; write ${kinds}; did you mean serial?`],
    ["Camera", `is "Camera"; write ${kinds}; did you mean camera?`],
    ["kafka", `is "kafka"; write ${kinds}`],
    ["5", `is 5; write ${kinds}`],
    ["", `is empty; write ${kinds}`],
  ])
    assert.equal(
      problems(`device: pi\nsources:\n  - name: a\n    type: ${kind}\n    port: 1\n`, agentConfig),
      `test.yaml:\n  line 4: sources[0].type: ${expected}`,
    );
  assert.match(
    problems("device: pi\nsources:\n  - name: a", agentConfig),
    /line 3: sources\[0\]\.type: is missing; write serial, /,
  );
  assert.match(
    problems("delivery: [{name: a, stream: s, destination: {type: s3, path: x}}]", gatewayConfig),
    /line 1: delivery\[0\]\.destination\.type: is "s3"; write files$/,
  );
});

test("a mistake is told with its line, also of one behind an alias, and of what is missing that of its list", () => {
  const text = `
streams:
  - &first
    name: a
    shards: 0
  - <<: {}
    name: b

delivery:
  - name: d
rules:
  - *first
`;
  const message = problems(text, gatewayConfig);
  assert.match(message, /line 5: streams\[0\]\.shards: is 0; at least 1/);
  assert.match(message, /line 6: streams\[1\]: unknown key "<<"/);
  assert.match(message, /line 10: delivery\[0\]\.stream: is missing/);
  assert.match(message, /line 4: rules\[0\]: unknown key "name"/);
});

test("a word from the environment is shown nowhere", () => {
  const environment = { SECRET: "hunter2" };
  for (const text of ["log: ${SECRET}", "delivery: [{destination: {type: '${SECRET}'}}]", "store: ${SECRET}"])
    assert.doesNotMatch(problems(text, gatewayConfig, environment), /hunter2/);
});

test("a path that only a shell would understand is refused, and made nowhere", () => {
  for (const path of ["~/data", "~pi/data", "$HOME/data", '"~"'])
    for (const [key, text, schema] of [
      ["dataDir", `dataDir: ${path}`, gatewayConfig],
      ["dataDir", `device: pi\ndataDir: ${path}`, agentConfig],
      ["tls.certFile", `tls: {certFile: ${path}, keyFile: a}`, gatewayConfig],
      [
        "store.jetstream.credentialsFile",
        `store: {jetstream: {servers: [a], credentialsFile: ${path}}}`,
        gatewayConfig,
      ],
      [
        "delivery[0].destination.path",
        `delivery: [{name: a, stream: s, destination: {type: files, path: ${path}}}]`,
        gatewayConfig,
      ],
      ["sources[0].path", `device: pi\nsources: [{name: a, type: file, path: ${path}}]`, agentConfig],
      [
        "sources[0].cwd",
        `device: pi\nsources: [{name: a, type: command, command: [a], cwd: ${path}}]`,
        agentConfig,
      ],
    ] as const) {
      const message = problems(text, schema);
      assert.ok(message.includes(`: ${key}: ~ and $NAME are the shell's`), message);
    }
  const good = (text: string) => parseConfig("g.yaml", text, gatewayConfig, { HOME: "/home/pi" }).dataDir;
  assert.equal(good("dataDir: ${HOME}/data"), "/home/pi/data");
  assert.equal(good("dataDir: ./~"), "./~");
  assert.equal(good("dataDir: a~/$b"), "a~/$b");
});

test("no mistake in a config shows a secret, and each is told with its place", () => {
  const secret = "s3cr3t-of-16-and-more";
  const device = (value: string): string => `devices:\n  - id: pi-1\n    password: ${value}\n`;
  for (const [text, expected] of [
    [device(`*${secret}`), /line 3, column 15: text that begins with \* needs quotes/],
    [device(`!${secret}`), /line 3, column 15: text that begins with ! needs quotes/],
    [device(`>${secret}`), /line 3, column \d+: /],
    [device(`@${secret}`), /line 3, column 15: text that begins with this character needs quotes/],
    [device(`"${secret}`), /line \d, column \d+: something is missing/],
    [device(`"${secret}" ${secret}`), /line 3, column \d+: /],
    [device(`"\\q${secret}"`), /line 3, column \d+: in "…" a \\ is written twice/],
    [device(`abcdefgh #${secret}`), /line 3, column 23: what stands behind # is a comment/],
    [
      `devices: [{id: pi-1, password:${secret}}]`,
      /devices\[0\]: there is no space behind the colon of "pass/,
    ],
    [`devices: [{id: pi-1, password: abc,${secret}}]`, /devices\[0\]: a word between commas that is no key/],
    [`devices: {id: pi-1, password: ${secret}}`, /devices: is a group of keys; a list is needed/],
    [`devices: [{id: pi-1, password: [${secret}]}]`, /devices\[0\]\.password: is a list; text is needed/],
  ] as const) {
    const message = problems(text, gatewayConfig);
    assert.match(message, expected);
    assert.ok(!message.includes(secret.slice(2)), message);
  }
  // A comment behind a secret is one where a space is between.
  const { devices } = parseConfig("g.yaml", device(`${secret} # of the barn`), gatewayConfig, {});
  assert.equal(devices[0]?.password, secret);
});

test("a mistake is told in the words of who wrote it, with what would be accepted", () => {
  for (const [text, expected] of [
    ["http:\nport: 8080", /http: is empty; keys are needed: .*indented lines below/],
    ["http: {port: '8080'}", /http\.port: is text; a number is needed, without quotes and unit$/],
    ["http: {port: 80800}", /line 1: http\.port: is 80800; at most 65535$/],
    ["http: {host: '127.0.0.1:8080'}", /http\.host: an address or a name alone[^\n]*$/],
    ["tls: {host: 'https://gw'}", /tls\.host: an address or a name alone/],
    ["log: INFO", /line 1: log: is "INFO"; write debug, info, warn or error; did you mean info\?$/],
    ["delivery: [{name: a, stream: s}]", /delivery\[0\]\.destination: is missing; keys are needed/],
    [
      "devices: [{id: pi-1, password: 12345678}]",
      /password: is a number; text is needed, digits alone in quotes$/,
    ],
    ["devices: [{id: pi-1, password: short}]", /password: at least 8 characters$/],
    ["store: jetstream", /store: is text; keys are needed: [^\n]*; or write local$/],
    [
      "store: {jetstream: {replicas: 3}}",
      /^test\.yaml:\n {2}line 1: store\.jetstream\.servers: is missing; a list is needed[^\n]*$/,
    ],
    ["log: info\n---\nlog: warn", /line 2, column 1: a line --- begins a second config/],
  ] as const)
    assert.match(problems(text, gatewayConfig), expected);
  assert.match(
    problems("device: pi\nuplink: {maxBytesPerSecond: fast}", agentConfig),
    /^test\.yaml:\n {2}line 2: uplink\.maxBytesPerSecond: "fast" is no size[^\n]*; or write none$/,
  );
  assert.match(problems("device: [a]", agentConfig), /device: is a list; text is needed/);
});
