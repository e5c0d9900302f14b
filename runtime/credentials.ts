/**
 * Secrets that systemd hands to a service as files (LoadCredential=, systemd.exec(5)): each is found
 * under its name, like a variable of the environment, but no child process inherits it.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { HeadwaterError } from "./errors.ts";

/** A password or a key, not a video. */
const MAX_CREDENTIAL_BYTES = 65_536;
/** What a unit's `LoadCredential=secret:DIRECTORY` puts before the name of each file. */
const PREFIX = "secret_";

/** Nothing was started. */
export class CredentialError extends HeadwaterError {
  constructor(name: string, why: string) {
    super("CREDENTIAL_UNUSABLE", {
      message: `credential ${name}: ${why}`,
      hint: "look at the files that the unit's LoadCredential names",
    });
  }
}

/**
 * `environment` with the files of its CREDENTIALS_DIRECTORY; a file wins over a variable of the same
 * name. A line break at a file's end is not part of it: editors leave one.
 * @throws CredentialError
 */
export async function withCredentials(
  environment: Readonly<NodeJS.ProcessEnv>,
): Promise<Readonly<NodeJS.ProcessEnv>> {
  const folder = environment.CREDENTIALS_DIRECTORY;
  if (folder === undefined || folder === "") return environment;
  const found: Record<string, string | undefined> = { ...environment };
  for (const file of await namesIn(folder)) {
    const name = file.startsWith(PREFIX) ? file.slice(PREFIX.length) : file;
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) continue;
    const bytes = await readFile(join(folder, file)).catch((error: NodeJS.ErrnoException) => {
      throw new CredentialError(name, error.code ?? error.message);
    });
    if (bytes.length > MAX_CREDENTIAL_BYTES)
      throw new CredentialError(name, `is larger than ${MAX_CREDENTIAL_BYTES} bytes`);
    found[name] = bytes.toString("utf8").replace(/\r?\n$/, "");
  }
  return found;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Without any credential there may be no folder; where systemd itself runs in a container it may stay
    // root's alone. A secret that the config wants and that is missing is told of by the config's check.
    if (code === "ENOENT" || code === "EACCES") return [];
    throw new CredentialError(folder, code ?? String(error));
  }
}
