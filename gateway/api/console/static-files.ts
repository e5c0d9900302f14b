/** The console's page: files of one folder, given out as they are and nothing beside them. */
import { readFile, realpath, stat } from "node:fs/promises";
import { extname, join, sep } from "node:path";
import { type Exchange, header, send } from "../exchange.ts";
import { ConsoleError, SECURITY_HEADERS } from "./console-reply.ts";

/** One to four names, none of which begins with a dot; so neither `..` nor a hidden file can be meant. */
const PATH = /^(?:\/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}){1,4}$/;
const MAX_FILE_BYTES = 8 * 1_048_576;

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".json": "application/json; charset=utf-8",
  ".map": "application/json; charset=utf-8",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
};

interface StaticFile {
  readonly tag: string;
  readonly bytes: Buffer;
}

/**
 * Anybody may ask for them, as often as they like and without reading the answers: so all answers share the
 * bytes, of which there are as many as in the folder.
 */
export class StaticFiles {
  readonly #folder: string;
  /** By path, as they were when somebody last asked. */
  readonly #files = new Map<string, StaticFile>();
  /** Those that are being looked at; who asks meanwhile gets the same. */
  readonly #looks = new Map<string, Promise<StaticFile | undefined>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** @throws ConsoleError 404, 405 */
  async serve(exchange: Exchange): Promise<void> {
    if (exchange.method !== "GET" && exchange.method !== "HEAD") {
      throw new ConsoleError(405, "METHOD_NOT_ALLOWED", "files can only be read", undefined, {
        allow: "GET, HEAD",
      });
    }
    const path = exchange.path === "/" ? "/index.html" : exchange.path;
    const type = TYPES[extname(path).toLowerCase()];
    const file = PATH.test(path) && type !== undefined ? await this.#find(path) : undefined;
    if (file === undefined || type === undefined) throw notFound();
    const headers = {
      ...SECURITY_HEADERS,
      "content-type": type,
      "content-security-policy": policy(exchange.host),
      // The page changes with the gateway's version, so it is asked for each time; the tag keeps that cheap.
      "cache-control": "no-cache",
      etag: file.tag,
    };
    if (header(exchange, "if-none-match") === file.tag) return send(exchange, 304, headers);
    send(exchange, 200, headers, file.bytes);
  }

  #find(path: string): Promise<StaticFile | undefined> {
    const begun = this.#looks.get(path);
    if (begun !== undefined) return begun;
    const look = this.#look(path).finally(() => this.#looks.delete(path));
    this.#looks.set(path, look);
    return look;
  }

  async #look(path: string): Promise<StaticFile | undefined> {
    try {
      const root = await realpath(this.#folder);
      const found = await realpath(join(root, path));
      // A link that leads out of the folder is no file of the console.
      if (!found.startsWith(root + sep)) return undefined;
      const facts = await stat(found);
      if (!facts.isFile() || facts.size > MAX_FILE_BYTES) return undefined;
      const tag = `"${facts.size.toString(36)}-${Math.floor(facts.mtimeMs).toString(36)}"`;
      const kept = this.#files.get(path);
      if (kept?.tag === tag) return kept;
      const file = { tag, bytes: await readFile(found) };
      this.#files.set(path, file);
      return file;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "ENOENT" || code === "ENOTDIR" || code === "EACCES" || code === "ENAMETOOLONG")
        return undefined;
      throw error;
    }
  }
}

export function notFound(): ConsoleError {
  return new ConsoleError(404, "NOT_FOUND", "there is nothing here");
}

/** @param host checked already; not every browser takes 'self' to mean websockets as well */
function policy(host: string): string {
  return [
    "default-src 'self'",
    `connect-src 'self' ws://${host} wss://${host}`,
    "media-src 'self' blob:",
    "img-src 'self' data: blob:",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join("; ");
}
