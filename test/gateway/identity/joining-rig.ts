/** A real gateway with its TLS ports open, and devices that join it as an operator would have them do. */
import assert from "node:assert/strict";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { Credentials, type DeviceIdentity } from "../../../agent/identity/credentials.ts";
import { runJoin } from "../../../agent/identity/join-command.ts";
import { gatewayConfig } from "../../../config/gateway-config.ts";
import { parseConfig } from "../../../config/loader.ts";
import { runDevices } from "../../../gateway/devices-command.ts";
import { type Gateway, startGateway } from "../../../gateway/gateway.ts";
import { type Clock, systemClock } from "../../../runtime/clock.ts";
import type { Log } from "../../../runtime/log.ts";
import { removeFolder } from "../../support/remove-folder.ts";

export interface Ran {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

export class JoiningRig {
  readonly dir: string;
  readonly gateway: Gateway;
  /** All that the gateway logged, as JSON. */
  readonly logged: readonly string[];
  #folders = 0;

  constructor(dir: string, gateway: Gateway, logged: readonly string[]) {
    this.dir = dir;
    this.gateway = gateway;
    this.logged = logged;
  }

  /** @param tls more keys of `tls`; @param yaml more of the config */
  static async start(t: TestContext, tls = "", yaml = "", clock: Clock = systemClock): Promise<JoiningRig> {
    const dir = await mkdtemp(join(tmpdir(), "hw-join-"));
    const logged: string[] = [];
    const note = (fields: object, text?: string): void => void logged.push(JSON.stringify([fields, text]));
    const log: Log = { debug: note, info: note, warn: note, error: note, child: () => log };
    const text = `
dataDir: gateway
http: {port: 0}
mqtt: {port: 0}
rtsp: {port: 0}
tls: {https: 0, mqtts: 0, rtsps: 0${tls}}
streams: [{name: sensors}]
${yaml}`;
    const config = parseConfig("gateway.yaml", text, gatewayConfig, {});
    const gateway = await startGateway(config, { configDir: dir, clock, log });
    t.after(async () => {
      await gateway.close();
      await removeFolder(dir);
    });
    return new JoiningRig(dir, gateway, logged);
  }

  port(door: "https" | "mqtts" | "rtsps"): number {
    return Number(/:(\d+)$/.exec(this.gateway.addresses[door]!)![1]);
  }

  async devices(...args: string[]): Promise<Ran> {
    let output = "";
    let errors = "";
    const code = await runDevices({
      args: [...args, "--config", "gateway.yaml"],
      dataDirOf: async () => join(this.dir, "gateway"),
      write: (text) => {
        output += text;
      },
      complain: (text) => {
        errors += text;
      },
    });
    return { code, output, errors };
  }

  async token(device: string, ...more: string[]): Promise<string> {
    const { code, output, errors } = await this.devices("token", device, ...more);
    assert.equal(code, 0, errors);
    return output.trim();
  }

  /** A folder of an agent that knows no gateway. */
  folder(): string {
    return join(this.dir, `agent-${++this.#folders}`);
  }

  async join(
    token: string,
    { folder = this.folder(), gateway = `127.0.0.1:${this.port("https")}`, clock = systemClock } = {},
  ): Promise<Ran & { readonly folder: string }> {
    let output = "";
    let errors = "";
    const code = await runJoin({
      args: [gateway, token, "--config", `${folder}.yaml`],
      environment: {},
      clock,
      readInput: async () => "",
      write: (text) => {
        output += text;
      },
      complain: (text) => {
        errors += text;
      },
    });
    return { code, output, errors, folder };
  }

  /** The identity of a device that joins now; `data` beside the config is its folder. */
  async joined(device: string): Promise<DeviceIdentity> {
    const ran = await this.join(await this.token(device));
    assert.equal(ran.code, 0, ran.errors);
    return (await Credentials.open(join(this.dir, "data")))!.identity;
  }
}
