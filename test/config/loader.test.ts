import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { agentConfig } from "../../config/agent-config.ts";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { ConfigError, loadConfig, parseConfig } from "../../config/loader.ts";
import { simConfig } from "../../config/sim-config.ts";
import { removeFolder } from "../support/remove-folder.ts";
import { problems } from "./problems.ts";

test("what is no YAML is refused with its place, and without what stands there", () => {
  const message = problems(
    'accessKeys:\n  - {id: AKIA1234, secret: "s3cr3t s3cr3t s3cr3t"\nstreams: []\n',
    gatewayConfig,
  );
  assert.match(message, /^test\.yaml:\n {2}line \d, column \d+: /);
  assert.doesNotMatch(message, /s3cr3t/);
});

test("a key's right that no action has is refused, as the key would be refused everywhere", () => {
  const allow = (pattern: string): string =>
    `accessKeys: [{id: FARM, secret: 0123456789abcdef-, allow: ['${pattern}']}]`;
  for (const pattern of [
    "foo",
    "kinesis:get*",
    "Kinesis:GetRecords",
    "kinesis:",
    "s3:*",
    "consol",
    "PutRecords",
  ]) {
    assert.match(
      problems(allow(pattern), gatewayConfig),
      /accessKeys\[0\]\.allow\[0\]: allows nothing; write/,
    );
  }
  for (const pattern of [
    "*",
    "kinesis:*",
    "kin*",
    "kinesis:Get*",
    "kinesis:PutRecords",
    "console",
    "*Records",
  ]) {
    parseConfig("g.yaml", allow(pattern), gatewayConfig, {});
  }
});

test("a topic filter that is none of MQTT's is refused", () => {
  for (const topic of ["", "a/#/b", "a+/b", "a/b#", "##", "+a"]) {
    const rule = `rules: [{topic: '${topic}', stream: s}]`;
    assert.match(problems(rule, gatewayConfig), /rules\[0\]\.topic: /);
    const source = `device: pi\nsources: [{name: a, type: mqtt, topics: ['${topic}']}]`;
    assert.match(problems(source, agentConfig), /sources\[0\]\.topics\[0\]: /);
  }
  for (const topic of ["#", "+", "a", "a/b", "/a", "a/", "a/+/b", "+/+", "a/#", "/#", "$SYS/#", "ä b/c"]) {
    parseConfig("g.yaml", `rules: [{topic: '${topic}', stream: s}]`, gatewayConfig, {});
  }
});

test("an empty path is refused: it would be the config's own folder", () => {
  const delivery = "delivery: [{name: a, stream: s, destination: {type: files, path: ''}}]";
  assert.match(problems(delivery, gatewayConfig), /delivery\[0\]\.destination\.path: /);
  assert.match(problems("dataDir: ''", gatewayConfig), /dataDir: /);
  assert.match(problems("device: pi\ndataDir: ''", agentConfig), /dataDir: /);
});

test("a door that others can reach needs credentials first", () => {
  assert.match(problems("mqtt: {host: 0.0.0.0}", gatewayConfig), /mqtt\.host: .*devices/);
  assert.match(problems("http: {host: 192.168.1.2}", gatewayConfig), /http\.host: .*accessKeys/);
  assert.match(
    problems("device: pi\nsources: [{name: a, type: mqtt, host: '::'}]", agentConfig),
    /sources\[0\]\.users: needed/,
  );
});

test("footage goes to the gateway by RTSP, also over TLS, and so it comes from cameras", () => {
  const { gateway } = parseConfig(
    "a.yaml",
    "device: pi\ngateway: {rtsp: 'rtsps://gw:8322'}",
    agentConfig,
    {},
  );
  assert.equal(gateway.rtsp, "rtsps://gw:8322");
  assert.match(problems("device: pi\ngateway: {rtsp: 'http://gw'}", agentConfig), /an rtsp:\/\/ or rtsps:/);
  // ffmpeg fetches from cameras, and it knows TLS.
  const camera = "device: pi\nsources: [{name: a, type: camera, url: 'rtsps://cam/x'}]";
  assert.equal(parseConfig("a.yaml", camera, agentConfig, {}).sources.length, 1);
});

test("a certificate of the gateway comes with its key", () => {
  const { tls } = parseConfig("g.yaml", "tls: {certFile: a, keyFile: b}", gatewayConfig, {});
  assert.deepEqual([tls?.https, tls?.mqtts, tls?.rtsps, tls?.host], [8443, 8883, 8322, "127.0.0.1"]);
  assert.equal(parseConfig("g.yaml", "", gatewayConfig, {}).tls, undefined);
  assert.match(
    problems("tls: {certFile: a}", gatewayConfig),
    /tls\.keyFile: certFile and keyFile go together/,
  );
});

test("a camera's name that the gateway could not take is refused at once", () => {
  for (const bad of [".hidden", "..", "."]) {
    const text = `device: pi\nsources: [{name: ${bad}, type: camera, url: 'rtsp://cam/x'}]`;
    assert.match(problems(text, agentConfig), /sources\[0\]\.name: .*dot/);
  }
});

test("the console answers to further names, which are names and no addresses of pages", () => {
  const { http } = parseConfig("g.yaml", "http: {hostNames: [Gateway.Local, '::1', pi]}", gatewayConfig, {});
  assert.deepEqual(http.hostNames, ["gateway.local", "::1", "pi"]);
  assert.deepEqual(parseConfig("g.yaml", "", gatewayConfig, {}).http.hostNames, []);
  for (const bad of ["http://gw", "gw:8080", "*", "a b", ""]) {
    assert.match(
      problems(`http: {hostNames: ['${bad}']}`, gatewayConfig),
      /http\.hostNames\[0\]: a name such as/,
    );
  }
  assert.match(problems("mqtt: {hostNames: [x]}", gatewayConfig), /unknown key "hostNames"/);
});

test("the environment fills in, with a fallback where one is given", () => {
  const text = "device: ${NAME}\ngateway: {password: '${SECRET:-none at all}'}";
  assert.deepEqual(
    parseConfig("a.yaml", text, agentConfig, { NAME: "pi-7" }).gateway.password,
    "none at all",
  );
  assert.match(problems("device: ${NAME}", agentConfig), /device: the environment has no NAME/);
  // Whether NAME is there or not, a } of it would be left in the value.
  for (const environment of [{}, { NAME: "one" }, { NAME: "one", OTHER: "two" }])
    assert.match(
      problems("device: pi\ngateway: {password: '${NAME:-${OTHER}}'}", agentConfig, environment),
      /gateway\.password: the fallback of NAME is text, without a \$\{ in it$/,
    );
});

test("what the environment has in another encoding than UTF-8 is refused", () => {
  const script = "console.log(JSON.stringify(process.env.SECRET))";
  const latin1 = ["-c", `SECRET=$(printf 'schl\\374ssel99') exec "$@"`, "sh", process.execPath, "-e", script];
  const found = JSON.parse(execFileSync("sh", latin1, { encoding: "utf8" })) as string;
  const text = "device: pi\ngateway: {password: '${SECRET}'}";
  assert.match(
    problems(text, agentConfig, { SECRET: found }),
    /gateway\.password: what the environment has as SECRET is not in UTF-8$/,
  );
  const { gateway } = parseConfig("test.yaml", text, agentConfig, { SECRET: "schlüssel99" });
  assert.equal(gateway.password, "schlüssel99");
});

test("the environment gives numbers, true and false where they are needed, and text elsewhere", () => {
  const text = `
device: pi
http: { port: "\${PORT:-8081}" }
gateway: { password: "\${DIGITS}" }
uplink: { metered: { footage: "\${FOOTAGE}" }, maxBytesPerSecond: "\${CAP}" }
`;
  const environment = { PORT: "9000", DIGITS: "12345678", FOOTAGE: "true", CAP: "4096" };
  const { http, gateway, uplink } = parseConfig("a.yaml", text, agentConfig, environment);
  assert.deepEqual(
    [http.port, gateway.password, uplink.metered.footage, uplink.maxBytesPerSecond],
    [9000, "12345678", true, 4096],
  );
  assert.match(
    problems(text, agentConfig, { ...environment, PORT: "90000" }),
    /http\.port: is 90000; at most 65535/,
  );
  assert.match(
    problems(text, agentConfig, { ...environment, PORT: "high" }),
    /http\.port: is text; a number/,
  );
  assert.match(problems("http: {port: '8080'}", gatewayConfig), /http\.port: is text/);
});

test("a file in another encoding than UTF-8 is refused, as a password would be read wrong", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "hw-config-"));
  t.after(() => removeFolder(folder));
  const file = join(folder, "agent.yaml");
  const text = "device: pi\ngateway: {password: schlüssel99}\n";
  const inUtf16 = Buffer.from(`\ufeff${text}`, "utf16le");
  for (const bytes of [Buffer.from(text, "latin1"), inUtf16]) {
    await writeFile(file, bytes);
    await assert.rejects(loadConfig(file, agentConfig, {}), /is not in UTF-8/);
  }
  // As Windows writes it.
  await writeFile(file, `\ufeff${text.replaceAll("\n", "\r\n")}`);
  assert.equal((await loadConfig(file, agentConfig, {})).gateway.password, "schlüssel99");
});

test("a file that is not there is said to be so", async () => {
  await assert.rejects(loadConfig("/nowhere/gateway.yaml", gatewayConfig, {}), /there is no such file/);
});

test("names that must differ are refused when they do not", () => {
  assert.match(
    problems("streams: [{name: a}, {name: a}]", gatewayConfig),
    /streams\[1\]\.name: a is listed twice/,
  );
  const key = (secret: string): string => `{id: AKIAONE, secret: ${secret}, allow: [console]}`;
  const secrets = ["the first secret of it", "another secret of it"];
  const twice = problems(`accessKeys: [${secrets.map(key).join(", ")}]`, gatewayConfig);
  assert.match(twice, /accessKeys\[1\]\.id: AKIAONE is listed twice/);
  for (const secret of secrets) assert.ok(!twice.includes(secret));
  const device = (password: string): string => `{id: pi-1, password: ${password}}`;
  const devices = problems(`devices: [${secrets.map(device).join(", ")}]`, gatewayConfig);
  assert.match(devices, /devices\[1\]\.id: pi-1 is listed twice/);
  for (const secret of secrets) assert.ok(!devices.includes(secret));
});

test("the configs of the demo are good", async () => {
  for (const [file, schema] of [
    ["agent", agentConfig],
    ["gateway", gatewayConfig],
    ["sim", simConfig],
  ] as const) {
    await loadConfig(`config/demo/${file}.yaml`, schema, {});
  }
});

test("the environment gives numbers and true also where something else could stand", () => {
  const environment = { COPIES: "3", YES: "true" };
  const text = `store: {jetstream: {servers: [a:4222], replicas: "\${COPIES}"}}\nstreams: [{name: a, onDemand: "\${YES}"}]`;
  const { store, streams } = parseConfig("test.yaml", text, gatewayConfig, environment);
  assert.ok(typeof store !== "string" && store.jetstream.replicas === 3);
  assert.equal(streams[0]?.onDemand, true);
  assert.match(
    problems(text, gatewayConfig, { COPIES: "3x", YES: "true" }),
    /store\.jetstream\.replicas: is text; a number is needed/,
  );
});

test("aliases cost little, however many there are, and one that holds itself is told", () => {
  const began = performance.now();
  const many = (count: number): string => `devices: &x []\nb: [${Array(count).fill("*x").join(",")}]`;
  assert.match(problems(many(50_000), gatewayConfig), /line 2, column \d+: more than 999 aliases/);
  // It took minutes.
  assert.ok(performance.now() - began < 20_000);
  assert.match(problems("streams: &a [*a]", gatewayConfig), /aliases \(\*\) stand for .* holds itself/);
  assert.match(problems("b: *x\na: &x 1", gatewayConfig), /line 1, column 4: text that begins with \*/);
});

test("a key that is no word is told with its place, without a word of yaml's own", async () => {
  const warnings: string[] = [];
  const listen = ({ message }: Error): void => void warnings.push(message);
  process.on("warning", listen);
  try {
    for (const text of [
      "devices:\n  - id: a\n    password: {{hunter2hunter2}}",
      "? [password, hunter2hunter2]\n: 1",
      "? {password: hunter2hunter2}\n: 1",
    ]) {
      const message = problems(text, gatewayConfig);
      assert.match(message, /line \d, column \d+: a key is a word/);
      assert.doesNotMatch(message, /hunter2/);
    }
    await new Promise(setImmediate);
    assert.deepEqual(warnings, []);
  } finally {
    process.off("warning", listen);
  }
});

test("any text gives a config or a ConfigError", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json(),
        fc.string().map((s) => `streams: ${s}`),
      ),
      (text) => {
        try {
          parseConfig("fuzz.yaml", text, gatewayConfig, {});
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});

test("an address that could not be dialled is refused", () => {
  for (const bad of ["rtsp://cam:554544/x", "rtsp://", "rtsp:///x", "rtsp://a b/x"]) {
    const camera = `device: pi\nsources: [{name: a, type: camera, url: "${bad}"}]`;
    assert.match(
      problems(camera, agentConfig),
      /sources\[0\]\.url: write an rtsp:\/\/ address of a host/,
      bad,
    );
  }
  assert.match(
    problems("device: pi\ngateway: {mqtt: 'mqtt://gw:999999'}", agentConfig),
    /gateway\.mqtt: .* of a host/,
  );
  assert.match(
    problems("device: pi\ngateway: {https: 'https://'}", agentConfig),
    /gateway\.https: .* of a host/,
  );
  for (const good of [
    "rtsp://cam",
    "rtsp://[fd00::1]:8554/x",
    "rtsps://viewer:a%20b@10.0.0.9/stream?profile=1",
  ])
    parseConfig(
      "test.yaml",
      `device: pi\nsources: [{name: a, type: camera, url: "${good}"}]`,
      agentConfig,
      {},
    );
});

test("two doors on one port are refused before anything is started", () => {
  assert.match(problems("http: {port: 1883}", gatewayConfig), /mqtt\.port: 1883 is the port of http\.port/);
  assert.match(problems("tls: {https: 8080}", gatewayConfig), /tls\.https: 8080 is the port of http\.port/);
  const keys = "accessKeys: [{id: FARM, secret: 0123456789abcdef}]\n";
  for (const all of ["0.0.0.0", "'::'"])
    assert.match(
      problems(`${keys}http: {host: ${all}, port: 1883}`, gatewayConfig),
      /mqtt\.port: 1883 is the port of http\.port/,
    );
  parseConfig("g.yaml", `${keys}http: {host: 0.0.0.0, port: 1883}\nmqtt: {host: '::1'}`, gatewayConfig, {});
  assert.match(
    problems("device: pi\nhttp: {port: 1884}\nsources: [{name: a, type: mqtt}]", agentConfig),
    /sources\[0\]\.port: 1884 is the port of http, the status page/,
  );
  parseConfig("g.yaml", "http: {port: 0}\nmqtt: {port: 0}\nrtsp: {port: 0}", gatewayConfig, {});
  parseConfig("g.yaml", "tls: {host: 127.0.0.2, https: 8080}", gatewayConfig, {});
});
