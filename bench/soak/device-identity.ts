/** What the run's device shows at the TLS ports, got as an operator would: a token made beside the gateway, and the device joins with it. */
import { join } from "node:path";
import type { DeviceIdentity } from "../../agent/identity/credentials.ts";
import { callGateway } from "../../agent/identity/gateway-call.ts";
import { makeKey, makeSigningRequest } from "../../agent/identity/signing-request.ts";
import { runDevices } from "../../gateway/devices-command.ts";
import { CertificateAuthority } from "../../gateway/identity/ca.ts";
import { JOIN_PATH, JOIN_VERSION, type JoinAnswer, parseToken } from "../../protocol/joining.ts";
import { systemClock } from "../../runtime/clock.ts";

/** The agent's own `join` would send a first record, which is in nobody's ledger. */
export async function joinedDevice(
  dataDir: string,
  httpsPort: number,
  device: string,
): Promise<DeviceIdentity> {
  const token = parseToken(await tokenFor(dataDir, device));
  const key = makeKey();
  const address = { host: "127.0.0.1", port: httpsPort };
  const answer = await callGateway(address, { fingerprint: token.fingerprint }, "POST", JOIN_PATH, {
    version: JOIN_VERSION,
    secret: token.secret.toString("base64url"),
    request: makeSigningRequest(key, device).toString("base64"),
  });
  const { certificate, ca } = answer as JoinAnswer;
  return { device, key, certificate, ca };
}

/** The same name, certified by somebody whom the gateway does not know; it trusts the gateway nonetheless. */
export async function strangerLike({ device, ca }: DeviceIdentity, dir: string): Promise<DeviceIdentity> {
  const authority = await CertificateAuthority.open(join(dir, "stranger"), systemClock);
  const key = makeKey();
  const { pem } = await authority.issueDevice(device, makeSigningRequest(key, device), 2);
  return { device, key, certificate: pem, ca };
}

async function tokenFor(dataDir: string, device: string): Promise<string> {
  let token = "";
  let complaint = "";
  const code = await runDevices({
    args: ["token", device, "--config", "gateway.yaml"],
    dataDirOf: async () => dataDir,
    write: (text) => {
      token += text;
    },
    complain: (text) => {
      complaint += text;
    },
  });
  if (code !== 0) throw new Error(complaint);
  return token.trim();
}
