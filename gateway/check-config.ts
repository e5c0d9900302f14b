/**
 * What `--check` finds beyond the schema: files that the config names, read as a start would read them, and
 * names that fit together nowhere. Opens no port and writes nothing.
 */
import { resolve } from "node:path";
import type { GatewayConfig } from "../config/gateway-config.ts";
import { missingStreams } from "./configured-streams.ts";

export interface CheckParts {
  /** Relative paths of the config are taken from here. */
  readonly configDir: string;
  /** Of each statement, what it reads and writes. */
  readonly sqlStreams: readonly (readonly string[])[];
  readonly nowMs: number;
}

/** Each one line, `tls.certFile: …`, or `tls.certFile: warning: …`. */
export interface Findings {
  /** With these the gateway would not start. */
  readonly problems: readonly string[];
  /** With these it starts, and something will not work. */
  readonly warnings: readonly string[];
}

export async function checkConfig(config: GatewayConfig, parts: CheckParts): Promise<Findings> {
  const problems: string[] = [];
  const warnings: string[] = [];
  const configured = config.streams.map((entry) => entry.name);
  // Whoever lists none makes all of them by API.
  const missing = configured.length === 0 ? [] : missingStreams(config, parts.sqlStreams, configured);
  for (const { path, stream } of missing)
    warnings.push(
      `${path}: warning: streams has no ${stream}; nothing comes of this unless it is made by API`,
    );
  await checkCertificate(config.tls, parts, problems, warnings);
  return { problems, warnings };
}

async function checkCertificate(
  tls: GatewayConfig["tls"],
  { configDir, nowMs }: CheckParts,
  problems: string[],
  warnings: string[],
): Promise<void> {
  if (tls?.certFile === undefined || tls.keyFile === undefined) return;
  // Its code is loaded only where it is needed.
  const { certificateDoubts, readGiven, ServerCertificateError } = await import(
    "./identity/given-certificate.ts"
  );
  try {
    const given = await readGiven({
      certFile: resolve(configDir, tls.certFile),
      keyFile: resolve(configDir, tls.keyFile),
    });
    for (const doubt of certificateDoubts(given, tls.names, nowMs))
      warnings.push(`tls.certFile: warning: ${doubt}`);
  } catch (error) {
    if (!(error instanceof ServerCertificateError)) throw error;
    // Keys are often for the service's user alone, and this is another one.
    if (error.isForbidden)
      warnings.push(`tls.${error.option}: warning: ${error.message}; the gateway's user must be allowed to`);
    else problems.push(`tls.${error.option}: ${error.message}`);
  }
}
