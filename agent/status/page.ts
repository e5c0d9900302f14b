/**
 * The local status page, as it is served: three small texts, no build step, nothing from elsewhere.
 * It draws what presentation.ts says and asks again every two seconds while it is seen.
 */

export const PAGE_HTML = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>Headwater agent</title>
    <link rel="icon" href="/icon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/page.css">
    <script type="module" src="/page.js"></script>
  </head>
  <body>
    <header>
      <img src="/icon.svg" alt="" width="28" height="28">
      <h1 id="device">Headwater agent</h1>
      <span id="version" class="quiet"></span>
    </header>
    <main>
      <p id="headline" class="headline" role="status" aria-live="polite">Asking the agent …</p>
      <div id="sections"></div>
    </main>
    <footer class="quiet">The same as text: <code>headwater-agent status</code> ·
      <a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · <a href="/healthz">healthz</a></footer>
    <noscript><p>This page needs JavaScript; <a href="/status.json">status.json</a> does not.</p></noscript>
  </body>
</html>
`;

export const ICON_SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="#0b7a8f" d="M16 2.5c5.2 6.2 9 10.7 9 16.1a9 9 0 0 1-18 0C7 13.2 10.8 8.7 16 2.5z"/><path fill="none" stroke="#fff" stroke-width="2.4" stroke-linecap="round" d="M9 19.5c2.3-1.8 4.7-1.8 7 0s4.7 1.8 7 0"/></svg>
`;

export const PAGE_CSS = `/* Every text pair has a contrast of at least 4.5 to 1, in light and in dark. */
:root {
  color-scheme: light dark;
  --ground: #f3f6f7; --card: #ffffff; --edge: #dfe6e9; --grid: #e9eef0; --text: #13222b; --quiet: #566771;
  --accent: #0b7a8f; --good: #17704a; --good-wash: #e2f3ea; --warn: #8a5300; --warn-wash: #fcf0d9;
  --bad: #b3261e; --bad-wash: #fde7e5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1418; --card: #151e24; --edge: #26323a; --grid: #222d34; --text: #e4edf1; --quiet: #96a7b1;
    --accent: #4cc3d6; --good: #6fd3a2; --good-wash: #12301f; --warn: #f0b95b; --warn-wash: #372811;
    --bad: #ff9d94; --bad-wash: #43191a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px / 1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
h1, h2, p { margin: 0; }
h1 { font-size: 1.15rem; font-weight: 700; letter-spacing: -0.02em; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; font-weight: 650; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.quiet { color: var(--quiet); }
header {
  display: flex; align-items: center; gap: 10px; padding: 10px max(20px, calc((100vw - 1120px) / 2));
  background: var(--card); border-bottom: 1px solid var(--edge);
}
main, footer { max-width: 1160px; margin: 0 auto; padding: 20px; }
footer { padding-top: 0; font-size: 0.85rem; }
.headline { padding: 10px 16px; border-radius: 12px; font-weight: 600; overflow-wrap: anywhere; }
section {
  margin-top: 18px; padding: 16px 18px; background: var(--card); border: 1px solid var(--edge); border-radius: 12px;
}
.scroller { overflow-x: auto; margin-top: 8px; }
table { width: 100%; border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 6px 16px 6px 0; text-align: left; vertical-align: top; border-top: 1px solid var(--grid); }
tr:first-child > * { border-top: 0; }
th:last-child, td:last-child { padding-right: 0; }
td, th { white-space: nowrap; }
td.wide { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; width: 50%; }
thead th { color: var(--quiet); font-size: 0.8rem; font-weight: 500; }
thead + tbody tr:first-child > * { border-top: 1px solid var(--grid); }
tbody th { font-weight: 600; }
th + td.wide { width: 99%; min-width: 0; }
td.numeric, th.numeric { text-align: right; }
.empty { padding-top: 8px; color: var(--quiet); }
[data-tone="good"] { color: var(--good); }
[data-tone="warn"] { color: var(--warn); }
[data-tone="bad"] { color: var(--bad); }
[data-tone="quiet"] { color: var(--quiet); }
.headline[data-tone="good"] { background: var(--good-wash); }
.headline[data-tone="warn"] { background: var(--warn-wash); }
.headline[data-tone="bad"] { background: var(--bad-wash); }
.headline[data-tone]::before { content: "●"; margin-right: 0.5em; font-size: 0.7em; vertical-align: 0.12em; }
[data-lost] #sections { opacity: 0.5; }
@media (max-width: 640px) {
  main, footer { padding: 12px; }
  section { padding: 12px; }
  th, td { padding-right: 12px; }
}
`;

/** All text goes in as text, never as markup: names of sensors and texts of errors come from strangers. */
export const PAGE_JS = String.raw`const EVERY_MS = 2000;
const byId = (id) => document.getElementById(id);

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setTone(node, tone) {
  if (tone === undefined) delete node.dataset.tone;
  else node.dataset.tone = tone;
}

function child(parent, tag, index) {
  const there = parent.children[index];
  if (there !== undefined && there.localName === tag) return there;
  const made = document.createElement(tag);
  if (there === undefined) parent.append(made);
  else there.replaceWith(made);
  return made;
}

function cut(parent, length) {
  while (parent.children.length > length) parent.lastElementChild.remove();
}

function drawRow(row, cells, columns) {
  cells.forEach((cell, i) => {
    const node = child(row, i === 0 ? "th" : "td", i);
    if (i === 0) node.scope = "row";
    const { numeric, wide } = columns?.[i] ?? { wide: i > 0 };
    node.className = numeric ? "numeric" : wide ? "wide" : "";
    setText(node, cell.text);
    setTone(node, cell.tone);
  });
  cut(row, cells.length);
}

function drawSection(node, section) {
  const title = child(node, "h2", 0);
  title.id = "title-" + section.title.toLowerCase().replace(/\W+/g, "-");
  node.setAttribute("aria-labelledby", title.id);
  setText(title, section.title);
  if (section.rows.length === 0) {
    const empty = child(node, "p", 1);
    empty.className = "empty";
    setText(empty, section.empty ?? "");
    return;
  }
  const scroller = child(node, "div", 1);
  scroller.className = "scroller";
  const table = child(scroller, "table", 0);
  const parts = section.columns === undefined ? ["tbody"] : ["thead", "tbody"];
  const nodes = parts.map((tag, i) => child(table, tag, i));
  cut(table, parts.length);
  if (section.columns !== undefined) {
    const head = child(nodes[0], "tr", 0);
    section.columns.forEach((column, i) => {
      const cell = child(head, "th", i);
      cell.scope = "col";
      cell.className = column.numeric ? "numeric" : "";
      setText(cell, column.title);
    });
    cut(head, section.columns.length);
  }
  const body = nodes.at(-1);
  section.rows.forEach((cells, i) => drawRow(child(body, "tr", i), cells, section.columns));
  cut(body, section.rows.length);
}

function draw(shown) {
  document.title = shown.device + " – Headwater agent";
  setText(byId("device"), shown.device);
  setText(byId("version"), shown.version);
  setText(byId("headline"), shown.headline.text);
  setTone(byId("headline"), shown.headline.tone);
  const sections = byId("sections");
  shown.sections.forEach((section, i) => drawSection(child(sections, "section", i), section));
  cut(sections, shown.sections.length);
}

let timer;
async function refresh() {
  clearTimeout(timer);
  try {
    const answer = await fetch("/presentation.json", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error("answered " + answer.status);
    draw(await answer.json());
    delete document.body.dataset.lost;
  } catch {
    document.body.dataset.lost = "";
    setText(byId("headline"), "The agent does not answer; what stands below is old");
    setTone(byId("headline"), "bad");
  }
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void refresh();
});
void refresh();
`;
