/**
 * `npm run docs`: writes docs/reference/errors.md from the error classes, config.md from the schemas,
 * and the tables of kinesis-api.md from the gateway's handler table. With --check it only says whether they are up to date.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import * as kinesisSdk from "@aws-sdk/client-kinesis";
import { z } from "zod";
import { kinesisPage } from "./kinesis-page.mjs";
import { filesBelow, prepare, root } from "./prepare.mjs";

const check = process.argv.includes("--check");
await prepare("build");

const stale = [];
write("docs/reference/errors.md", errorsPage());
write("docs/reference/config.md", await configPage());
const operations = await import(pathToFileURL(join(root, "dist/gateway/api/kinesis/operations.js")).href);
const kinesisText = readFileSync(join(root, "docs/reference/kinesis-api.md"), "utf8");
write("docs/reference/kinesis-api.md", kinesisPage(kinesisText, operations, kinesisSdk));
const version = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version;
if (!readFileSync(join(root, "runtime/version.ts"), "utf8").includes(`"${version}"`))
  stale.push("runtime/version.ts");
if (stale.length > 0) {
  process.stderr.write(`not up to date: ${stale.join(", ")}\nRun: npm run docs\n`);
  process.exit(1);
}

function write(path, text) {
  const file = join(root, path);
  if (existsSync(file) && readFileSync(file, "utf8") === text) return;
  if (check) stale.push(path);
  else writeFileSync(file, text);
}

/** A row for each class: its code, where it is, and the comment that says when. */
function errorsPage() {
  const rows = [];
  const pattern =
    /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*(?:export )?class (\w+) extends HeadwaterError \{[\s\S]*?super\(\s*"([A-Z_0-9]+)"/g;
  for (const folder of ["agent", "config", "firmware-sim", "gateway", "protocol", "runtime"]) {
    for (const file of filesBelow(join(root, folder), /\.ts$/)) {
      const text = readFileSync(file, "utf8");
      for (const [, comment, name, code] of text.matchAll(pattern)) {
        const when = comment
          .replace(/^\s*\* ?/gm, " ")
          .replace(/@\w+[\s\S]*/, "")
          .replace(/\s+/g, " ")
          .trim();
        rows.push(`| \`${code}\` | ${when} | \`${name}\` in ${relative(root, file)} |`);
      }
    }
  }
  return `# Error codes\n\nMade by \`npm run docs\` from the error classes.\n\n| code | when | class |\n| --- | --- | --- |\n${rows.sort().join("\n")}\n`;
}

async function configPage() {
  const parts = [
    "# Config keys\n\nMade by `npm run docs` from the schemas. `${NAME}` and `${NAME:-fallback}` are taken from the environment, also where a number is needed;\na fallback is text without `${`, and what the environment has is in UTF-8. What comes from there is not looked through again, so a secret that holds `${` itself is best kept in a variable.\nThe file is in UTF-8. Unknown keys are refused.",
  ];
  for (const [file, name] of [
    ["agent", "agentConfig"],
    ["gateway", "gatewayConfig"],
    ["sim", "simConfig"],
  ]) {
    const module = await import(pathToFileURL(join(root, `dist/config/${file}-config.js`)).href);
    const rows = [];
    walk(z.toJSONSchema(module[name], { io: "input", unrepresentable: "any" }), "", rows, false);
    parts.push(
      `## ${file}.yaml\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n${rows.join("\n")}`,
    );
  }
  return `${parts.join("\n\n")}\n`;
}

/** `, 24 to 8760`; what no config comes near is left out. */
function bounds({ minimum, maximum }) {
  if (!(minimum > Number.MIN_SAFE_INTEGER)) return "";
  return maximum < Number.MAX_SAFE_INTEGER ? `, ${minimum} to ${maximum}` : `, ${minimum} or more`;
}

function nameOfType(one) {
  return one.const === undefined ? one.type : `\`${one.const}\``;
}

function walk(schema, path, rows, required) {
  const cell = (text) =>
    String(text ?? "")
      .replace(/\|/g, "\\|")
      .replace(/\n/g, " ");
  if (path !== "" && schema.properties === undefined && schema.oneOf === undefined) {
    const type =
      schema.const !== undefined
        ? `\`${schema.const}\``
        : schema.enum
          ? schema.enum.map((one) => `\`${one}\``).join(", ")
          : schema.type === undefined
            ? (schema.anyOf ?? []).map(nameOfType).join(" or ")
            : `${schema.type}${bounds(schema)}`;
    const fallback =
      schema.default === undefined ? (required ? "needed" : "") : `\`${JSON.stringify(schema.default)}\``;
    rows.push(`| \`${path}\` | ${cell(type)} | ${cell(fallback)} | ${cell(schema.description)} |`);
  } else if (path !== "" && schema.description !== undefined) {
    rows.push(`| \`${path}\` | | | ${cell(schema.description)} |`);
  }
  for (const [key, inner] of Object.entries(schema.properties ?? {})) {
    walk(inner, path === "" ? key : `${path}.${key}`, rows, (schema.required ?? []).includes(key));
  }
  for (const variant of schema.anyOf ?? []) if (variant.properties) walk(variant, path, rows, false);
  for (const variant of schema.oneOf ?? []) {
    const type = variant.properties?.type?.const;
    walk(variant, `${path}${type === undefined ? "" : `(${type})`}`, rows, required);
  }
  if (schema.items !== undefined && (schema.items.properties ?? schema.items.oneOf))
    walk(schema.items, `${path}[]`, rows, required);
}
