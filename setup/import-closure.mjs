/**
 * Which files a built program can ever load: what its own modules import, followed through the
 * packages, as Node would resolve it. A package of the lockfile that nobody imports is not among them,
 * nor is a file of a package that nobody imports.
 */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { build } from "esbuild";
import { filesBelow } from "./prepare.mjs";

/** Node 20 and 22 differ in one condition of `exports`: the files of both are taken. */
const CONDITIONS = [[], ["module-sync", "node-addons"]];
/** A package that is looked up by its name: `createRequire(…)("x")` and `createRequire(…).resolve("x")`. */
const BY_NAME = /createRequire\(import\.meta\.url\)(?:\.resolve)?\("([^"]+)"\)/g;
const LICENCE = /^(licen[cs]e|copying|notice)(\.|-|$)/i;

/**
 * @param {{dist: string, root: string, program: "agent" | "gateway"}} where
 *   root has node_modules; dist may be elsewhere when it sees the same node_modules
 * @returns {Promise<{own: string[], packages: Map<string, string[]>}>}
 *   own: files below dist; packages: folder below root → its files. All paths relative and sorted.
 */
export async function importClosure({ dist, root, program }) {
  // All modules of the program, not only main.js: some are loaded by a worker or by name.
  const modules = filesBelow(join(dist, program), /\.js$/).filter(
    (file) => !file.startsWith(join(dist, program, "console")),
  );
  const named = modules.flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(BY_NAME)].map(([, name]) => name),
  );
  const inputs = new Set();
  for (const conditions of CONDITIONS) {
    const found = [
      await follow({ entryPoints: modules }, conditions),
      // `require`: so they are looked up by createRequire.
      await follow(
        {
          stdin: {
            contents: named.map((name) => `require(${JSON.stringify(name)});`).join(""),
            resolveDir: root,
          },
        },
        conditions,
      ),
    ];
    for (const { metafile } of found) for (const file of Object.keys(metafile.inputs)) inputs.add(file);
  }
  const own = [];
  const packages = new Map();
  for (const input of [...inputs].sort()) {
    const file = join(process.cwd(), input);
    const [, below] = /.*?\/(node_modules\/.*)/.exec(file) ?? [];
    if (below !== undefined) {
      const folder = packageFolder(below);
      packages.set(folder, [...(packages.get(folder) ?? []), below]);
    } else if (file.startsWith(`${dist}/`)) own.push(relative(dist, file));
  }
  for (const [folder, files] of packages) packages.set(folder, withDescriptions(root, folder, files));
  return { own, packages };
}

function follow(entry, conditions) {
  return build({
    ...entry,
    bundle: true,
    write: false,
    metafile: true,
    splitting: entry.entryPoints !== undefined,
    format: "esm",
    platform: "node",
    mainFields: ["main"],
    conditions,
    external: ["*.node"],
    preserveSymlinks: true,
    outdir: "unused",
    logLevel: "silent",
  });
}

/** `node_modules/a/node_modules/@b/c/lib/d.js` → `node_modules/a/node_modules/@b/c` */
function packageFolder(file) {
  return /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)/.exec(file)[1];
}

/** With each package.json on the way, which says how to read the files beside it, and the licence. */
function withDescriptions(root, folder, files) {
  const all = new Set(files);
  for (const file of files) {
    for (let at = dirname(file); at.length >= folder.length; at = dirname(at)) {
      if (existsSync(join(root, at, "package.json"))) all.add(join(at, "package.json"));
    }
  }
  for (const file of filesBelow(join(root, folder), LICENCE)) {
    if (dirname(file) === join(root, folder)) all.add(relative(root, file));
  }
  return [...all].sort();
}
