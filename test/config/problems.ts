import assert from "node:assert/strict";
import type { agentConfig } from "../../config/agent-config.ts";
import type { gatewayConfig } from "../../config/gateway-config.ts";
import { ConfigError, parseConfig } from "../../config/loader.ts";

/** What is said of a config that must be refused. */
export function problems(
  text: string,
  schema: typeof gatewayConfig | typeof agentConfig,
  environment = {},
): string {
  try {
    parseConfig("test.yaml", text, schema, environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  assert.fail("the config was accepted");
}
