/**
 * What stands in each of Headwater's Debian packages: program, unit, config, documentation, and the
 * scripts that dpkg runs.
 */
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { filesBelow } from "./prepare.mjs";
import { fail } from "./terminal.mjs";

const MAINTAINER = "Headwater <headwater@localhost>";
/** The newest symbols that the compiled parts ask for; libduckdb and Debian's armhf part are the ones that decide. */
const LIBRARIES = "libc6 (>= 2.34), libstdc++6 (>= 11)";
/** package.json's `engines`. */
const NODE_RUNTIME = "nodejs (>= 20.11) | headwater-node";

const ABOUT = {
  agent: {
    summary: "stores what sensors and cameras say, and brings it to a gateway",
    description: [
      "Headwater's program on the device. It takes records from serial lines, MQTT,",
      "files, HTTP and cameras, keeps them on its disk over power cuts and dead links,",
      "and uploads each exactly once to a Headwater gateway.",
    ],
    more: ["Recommends: ffmpeg"],
  },
  gateway: {
    summary: "Kinesis-compatible streams, delivery, SQL and video",
    description: [
      "Headwater's receiving program. It shards and keeps what agents send, speaks the",
      "protocols of Amazon Kinesis, delivers files, computes windows in SQL, and",
      "archives footage.",
    ],
    more: ["Recommends: ffmpeg"],
  },
};

/** @param {"agent" | "gateway"} program */
export function programPackage({
  tree,
  root,
  dist,
  program,
  version,
  epochSeconds,
  architecture,
  closure,
  parts,
}) {
  const name = `headwater-${program}`;
  const home = `usr/lib/${name}`;
  const rooted = (path) => readFileSync(join(root, path), "utf8");
  tree.write(`${home}/package.json`, `${JSON.stringify({ name, version, type: "module", private: true })}\n`);
  for (const file of closure.own) tree.copy(join(dist, file), `${home}/${file}`);
  for (const files of closure.packages.values()) {
    for (const file of files) tree.copy(join(root, file), `${home}/${file}`);
  }
  for (const { from, to } of parts) tree.copy(from, `${home}/${to}`);
  if (program === "gateway") {
    const pages = filesBelow(join(dist, "gateway/console"), /./);
    if (pages.length === 0) fail("the console is not built", "Run: npm run build");
    for (const file of pages) {
      tree.copy(file, `${home}/${relative(dist, file)}`);
    }
  }
  tree.write(`usr/bin/${name}`, launcher(name, program), 0o755);
  tree.write(`usr/lib/systemd/system/${name}.service`, rooted(`config/systemd/${name}.service`));
  tree.write(`etc/headwater/${program}.yaml`, rooted(`config/${program}.yaml`));
  tree.makePrivateFolder(`etc/headwater/${program}.credentials`);
  documentation({ tree, root, name, program, version, epochSeconds, closure });
  const { summary, description, more } = ABOUT[program];
  return {
    control: control({
      name,
      version,
      architecture,
      summary,
      description,
      more: [`Depends: ${NODE_RUNTIME}, ${LIBRARIES}`, ...more],
    }),
    conffiles: [`/etc/headwater/${program}.yaml`],
    scripts: maintainerScripts(name, program),
  };
}

/** Node itself, where Debian's is too old. Away from PATH: it is nobody else's. */
export function nodePackage({ tree, from, version, architecture }) {
  const name = "headwater-node";
  tree.copy(join(from, "bin/node"), "usr/lib/headwater-node/bin/node", 0o755);
  tree.copy(join(from, "LICENSE"), `usr/share/doc/${name}/copyright`);
  return {
    control: control({
      name,
      version,
      architecture,
      summary: "Node.js for Headwater's programs",
      description: [
        "The build of nodejs.org, for Debian releases whose own package nodejs is older",
        "than 20.11. Only headwater-agent and headwater-gateway run it.",
      ],
      more: ["Depends: libc6 (>= 2.28), libstdc++6 (>= 10)"],
    }),
  };
}

function control({ name, version, architecture, summary, description, more }) {
  return [
    `Package: ${name}`,
    `Version: ${version}`,
    `Architecture: ${architecture}`,
    `Maintainer: ${MAINTAINER}`,
    "Section: net",
    "Priority: optional",
    ...more,
    `Description: ${summary}`,
    ...description.map((line) => ` ${line}`),
    "",
  ].join("\n");
}

/** What a program's Node is told, as V8 lays out its heap before a line of ours runs: the agent's stays small. */
const NODE_FLAGS = { agent: "--max-semi-space-size=2 ", gateway: "" };

/** The program stays this process, which the service manager watches. */
function launcher(name, program) {
  return `#!/bin/sh
# Runs ${name} by Headwater's own Node where headwater-node is installed, else by the system's.
here=$(dirname "$(readlink -f "$0")")
node="$here/../lib/headwater-node/bin/node"
[ -x "$node" ] || node=node
exec "$node" ${NODE_FLAGS[program] ?? ""}"$here/../lib/${name}/${program}/main.js" "$@"
`;
}

function documentation({ tree, root, name, program, version, epochSeconds, closure }) {
  const folder = `usr/share/doc/${name}`;
  for (const [from, to] of [
    ["docs/guide/install.md", "README.md"],
    ["docs/reference/config.md", "config.md"],
    ["docs/reference/errors.md", "errors.md"],
  ]) {
    tree.copy(join(root, from), `${folder}/${to}`);
  }
  tree.writeGzipped(`${folder}/CHANGELOG.md.gz`, readFileSync(join(root, "CHANGELOG.md")));
  tree.writeGzipped(`${folder}/changelog.gz`, changelog(name, version, epochSeconds));
  tree.write(`${folder}/copyright`, copyright(root, name, closure));
  tree.writeGzipped(`usr/share/man/man8/${name}.8.gz`, manual(name, program, version));
}

/** In the form that Debian's tools read; what changed stands in the other file. */
function changelog(name, version, epochSeconds) {
  const date = new Date(epochSeconds * 1_000).toUTCString().replace("GMT", "+0000");
  return `${name} (${version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- ${MAINTAINER}  ${date}\n`;
}

/** Of each package that travels along, its licence in a word; the text stands in its folder. */
function copyright(root, name, { packages }) {
  const lines = [...packages.keys()].sort().map((folder) => {
    const {
      name: title,
      version,
      license,
    } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    return `  ${title} ${version}: ${license ?? "see its folder"}`;
  });
  return `Headwater

${readFileSync(join(root, "LICENSE"), "utf8").trim()}

Packages of npm in /usr/lib/${name}/node_modules, each with its licence in its folder:

${lines.join("\n")}

On Debian the Apache licence, version 2.0, is in /usr/share/common-licenses/Apache-2.0.
`;
}

function manual(name, program, version) {
  return `.TH ${name.toUpperCase()} 8 "" "Headwater ${version}"
.SH NAME
${name} \\- ${ABOUT[program].summary}
.SH SYNOPSIS
.B ${name}
.BI \\-\\-config " FILE"
.RB [ \\-\\-check ]
.SH DESCRIPTION
${ABOUT[program].description.join("\n")}
.PP
It runs as the service
.IR ${name}.service .
All options:
.B ${name} \\-\\-help
.SH FILES
.TP
.I /etc/headwater/${program}.yaml
The config; /usr/share/doc/${name}/config.md lists every key.
.TP
.I /etc/headwater/${program}.credentials/NAME
A secret that the config calls \${NAME}. Only root reads it.
.TP
.I /var/lib/${name}
What it keeps.
.SH EXIT STATUS
0 it ended as asked, 1 it failed, 2 the config or the command line is wrong.
`;
}

/**
 * As debhelper writes them. The gateway runs once it is installed. The agent does not: what it stores
 * belongs to the device's name, which nobody has chosen yet. An upgrade restarts what runs.
 */
function maintainerScripts(name, program) {
  const unit = `${name}.service`;
  const running = '[ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]';
  const enable = program === "agent" ? "update-state" : "enable";
  const start =
    program === "agent" ? "" : `\n    [ -n "$2" ] || deb-systemd-invoke start ${unit} >/dev/null || true`;
  return {
    postinst: `#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper unmask ${unit} >/dev/null || true
    if deb-systemd-helper --quiet was-enabled ${unit}; then
      deb-systemd-helper ${enable} ${unit} >/dev/null || true
    else
      deb-systemd-helper update-state ${unit} >/dev/null || true
    fi
  fi
  if ${running}; then
    systemctl --system daemon-reload >/dev/null || true${start}
    if systemctl --quiet is-active ${unit}; then
      [ -z "$2" ] || deb-systemd-invoke restart ${unit} >/dev/null || true
    fi
  fi
fi
`,
    prerm: `#!/bin/sh
set -e
if [ "$1" = remove ] && ${running}; then
  deb-systemd-invoke stop ${unit} >/dev/null || true
fi
`,
    postrm: `#!/bin/sh
set -e
if [ "$1" = remove ]; then
  if ${running}; then systemctl --system daemon-reload >/dev/null || true; fi
  if command -v deb-systemd-helper >/dev/null; then deb-systemd-helper mask ${unit} >/dev/null || true; fi
fi
if [ "$1" = purge ]; then
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper purge ${unit} >/dev/null || true
    deb-systemd-helper unmask ${unit} >/dev/null || true
  fi
  # With DynamicUser the folder itself is in private; the other is a link to it.
  rm -rf "$DPKG_ROOT/var/lib/private/${name}" "$DPKG_ROOT/var/lib/${name}"
  rm -rf "$DPKG_ROOT/etc/headwater/${program}.credentials"
  rmdir --ignore-fail-on-non-empty "$DPKG_ROOT/etc/headwater" 2>/dev/null || true
fi
`,
  };
}
