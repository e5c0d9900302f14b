/** The access keys of the config, or the one pair that is made at the first start and kept. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { AccessKeyConfig } from "../config/gateway-config.ts";
import { foreignFolder } from "../runtime/data-folder.ts";
import { writeDurably } from "../runtime/durable.ts";
import { HeadwaterError } from "../runtime/errors.ts";
import type { Log } from "../runtime/log.ts";

/** The kept pair cannot be read. Nothing was started. */
export class AccessKeyFileError extends HeadwaterError {
  constructor(file: string, cause?: unknown) {
    super("ACCESS_KEY_FILE", {
      message: `${file} does not hold an access key`,
      hint: "delete it and a new pair is made, or set accessKeys in gateway.yaml",
      cause,
    });
  }
}

/** @returns at least one key */
export async function accessKeysOf(
  configured: readonly AccessKeyConfig[],
  dataDir: string,
  log: Log,
): Promise<readonly AccessKeyConfig[]> {
  if (configured.length > 0) return configured;
  const file = join(dataDir, "access-key.json");
  const kept = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    // Another user's is whole: who deleted it would lock its clients out.
    throw foreignFolder(error) ?? new AccessKeyFileError(file, error);
  });
  if (kept !== undefined) {
    log.info({ file }, "access key of an earlier start");
    return [parseKey(file, kept)];
  }
  // AWS's form: AKIA and 16 characters of base32; the secret has 40.
  const id = `AKIA${[...randomBytes(16)].map((byte) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte & 31]).join("")}`;
  const made = { id, secret: randomBytes(30).toString("base64url"), allow: ["*"] };
  await writeDurably(
    file,
    `${JSON.stringify({ accessKeyId: made.id, secretAccessKey: made.secret }, null, 2)}\n`,
    0o600,
  );
  log.info({ file }, "access key made; its place is this file");
  return [made];
}

function parseKey(file: string, text: string): AccessKeyConfig {
  try {
    const { accessKeyId, secretAccessKey } = JSON.parse(text) as Record<string, unknown>;
    if (
      typeof accessKeyId === "string" &&
      typeof secretAccessKey === "string" &&
      secretAccessKey.length >= 16
    ) {
      return { id: accessKeyId, secret: secretAccessKey, allow: ["*"] };
    }
  } catch (error) {
    throw new AccessKeyFileError(file, error);
  }
  throw new AccessKeyFileError(file);
}
