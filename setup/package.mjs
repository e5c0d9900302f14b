/**
 * `npm run package`: Debian packages of agent and gateway for amd64, arm64 and armhf, each with its
 * unit and only what it imports. docs/design/0021-packages.md says why they are as they are.
 *
 *   --arch A,B        only for these
 *   --program A,B     only agent, gateway or node
 *   --out DIR         where to; else dist/packages
 *   --dist DIR        a build that stands elsewhere; it must see the same node_modules
 *   --compress none   for a quick look: xz takes most of the time
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { interruptible } from "./command.mjs";
import { prepare, root } from "./prepare.mjs";
import { fail, say } from "./terminal.mjs";

const options = {
  arch: { type: "string", default: "amd64,arm64,armhf" },
  program: { type: "string", default: "agent,gateway,node" },
  out: { type: "string", default: join(root, "dist", "packages") },
  dist: { type: "string" },
  compress: { type: "string", default: "xz" },
};
const values = readOptions();
if (values.dist === undefined) await prepare("build");
// They need packages of npm, which are there only now.
const { importClosure } = await import("./import-closure.mjs");
const { PackageTree, sourceEpoch } = await import("./debian-package.mjs");
const { ARCHITECTURES, fetchPackage, impossible, NODE, nativeParts } = await import("./native-parts.mjs");
const { nodePackage, programPackage } = await import("./package-contents.mjs");

const dist = resolve(values.dist ?? join(root, "dist"));
const out = resolve(values.out);
const [compression] = list(values.compress, ["xz", "none"]);
const cache = join(out, ".cache");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const epochSeconds = sourceEpoch(root);
const scratch = mkdtempSync(join(tmpdir(), "headwater-package-"));
process.once("exit", () => rmSync(scratch, { recursive: true, force: true }));
mkdirSync(out, { recursive: true });
mkdirSync(cache, { recursive: true });
await interruptible(async () => {
  for (const program of list(values.program, ["agent", "gateway", "node"])) {
    const architectures = list(values.arch, Object.keys(ARCHITECTURES));
    if (program === "node") await buildNode(architectures);
    else await buildProgram(program, architectures);
  }
});

async function buildProgram(program, architectures) {
  const closure = await importClosure({ dist, root, program });
  const modules = [...closure.packages.values()].flat().length;
  say(
    `${program}: ${closure.own.length} files of its own, ${modules} of ${closure.packages.size} npm packages`,
  );
  for (const architecture of architectures) {
    const why = impossible(closure.packages, architecture);
    if (why !== undefined) {
      say(`no headwater-${program} for ${architecture}: ${why}`);
      continue;
    }
    const parts = await nativeParts({ root, cache, packages: closure.packages, architecture });
    const tree = newTree(`headwater-${program}`, architecture);
    const about = programPackage({
      tree,
      root,
      dist,
      program,
      version,
      epochSeconds,
      architecture,
      closure,
      parts,
    });
    await buildPackage(tree, about, `headwater-${program}_${version}_${architecture}.deb`);
  }
}

async function buildNode(architectures) {
  for (const architecture of architectures) {
    const source = NODE[architecture];
    if (source === undefined) {
      say(`no headwater-node for ${architecture}: nobody publishes a current one; Debian 13's nodejs does`);
      continue;
    }
    const from = await fetchPackage({ cache, version: NODE.version, ...source });
    const tree = newTree("headwater-node", architecture);
    const about = nodePackage({ tree, from, version: NODE.version, architecture });
    await buildPackage(tree, about, `headwater-node_${NODE.version}_${architecture}.deb`);
  }
}

function newTree(name, architecture) {
  const folder = join(scratch, `${name}_${architecture}`);
  mkdirSync(folder);
  return new PackageTree(folder);
}

async function buildPackage(tree, about, file) {
  const unpacked = tree.bytes;
  await tree.build(about, join(out, file), { epochSeconds, compression });
  rmSync(tree.folder, { recursive: true, force: true });
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  say(`${file}: ${megabytes(statSync(join(out, file)).size)}, unpacked ${megabytes(unpacked)}`);
}

function readOptions() {
  try {
    return parseArgs({ options, strict: true }).values;
  } catch (error) {
    return fail(error.message, "npm run package -- [--arch amd64] [--program agent] [--out DIR]", 2);
  }
}

function list(text, known) {
  const wanted = text.split(",");
  const strange = wanted.find((one) => !known.includes(one));
  if (strange !== undefined) fail(`${strange} is none of ${known.join(", ")}`, "", 2);
  return wanted;
}
