/**
 * Bundles the console page. Its folder then holds all that the browser needs; nothing is fetched from
 * elsewhere.
 *
 *   node gateway/console/build.mjs [FOLDER]     default dist/gateway/console
 */
import { copyFile, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const web = fileURLToPath(new URL("web/", import.meta.url));
const folder = resolve(
  process.argv[2] ?? fileURLToPath(new URL("../../dist/gateway/console", import.meta.url)),
);

await mkdir(folder, { recursive: true });
await build({
  entryPoints: [join(web, "console.ts"), join(web, "console.css")],
  outdir: folder,
  bundle: true,
  minify: true,
  sourcemap: false,
  format: "esm",
  target: ["es2022"],
  legalComments: "eof",
  logLevel: "warning",
});
for (const file of ["index.html", "icon.svg"]) await copyFile(join(web, file), join(folder, file));
