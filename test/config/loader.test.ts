import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { agentConfig } from "../../config/agent-config.ts";
import { gatewayConfig } from "../../config/gateway-config.ts";
import { ConfigError, loadConfig, parseConfig } from "../../config/loader.ts";
import { simConfig } from "../../config/sim-config.ts";

function problems(text: string, schema: typeof gatewayConfig | typeof agentConfig, environment = {}): string {
  try {
    parseConfig("test.yaml", text, schema, environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  assert.fail("the config was accepted");
}

test("an unknown key is refused with its name", () => {
  assert.match(problems("sterams: []", gatewayConfig), /unknown key "sterams"/);
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
  assert.match(problems("device: pi\nsources: [{name: a, type: serail}]", agentConfig), /sources\[0\]\.type/);
});

test("a door that others can reach needs credentials first", () => {
  assert.match(problems("mqtt: {host: 0.0.0.0}", gatewayConfig), /mqtt\.host: .*devices/);
  assert.match(problems("http: {host: 192.168.1.2}", gatewayConfig), /http\.host: .*accessKeys/);
  assert.match(
    problems("device: pi\nsources: [{name: a, type: mqtt, host: '::'}]", agentConfig),
    /sources\[0\]\.users: needed/,
  );
});

test("the environment fills in, with a fallback where one is given", () => {
  const text = "device: ${NAME}\ngateway: {password: '${SECRET:-none at all}'}";
  assert.deepEqual(
    parseConfig("a.yaml", text, agentConfig, { NAME: "pi-7" }).gateway.password,
    "none at all",
  );
  assert.match(problems("device: ${NAME}", agentConfig), /device: the environment has no NAME/);
});

test("names that must differ are refused when they do not", () => {
  assert.match(
    problems("streams: [{name: a}, {name: a}]", gatewayConfig),
    /streams\[1\]\.name: a is listed twice/,
  );
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
