/**
 * The tables of docs/reference/kinesis-api.md: from the gateway's handler table and the commands that
 * the SDK knows. What stands around them is written by hand.
 */
const BEGIN = "<!-- Made by `npm run docs` from gateway/api/kinesis/operations.ts. -->";
const END = "<!-- End of what is made. -->";

/**
 * @param {string} page as it stands
 * @param {{ OFFERED: Record<string, { note: string }>, REFUSED: Record<string, string> }} table
 * @param {Record<string, unknown>} sdk `@aws-sdk/client-kinesis`
 * @returns {string} the page as it should stand
 */
export function kinesisPage(page, table, sdk) {
  const commands = Object.keys(sdk)
    .filter((name) => /^[A-Z]\w+Command$/.test(name))
    .map((name) => name.slice(0, -"Command".length));
  const known = [...Object.keys(table.OFFERED), ...Object.keys(table.REFUSED)].sort();
  const strangers = [
    ...commands.filter((name) => !known.includes(name)),
    ...known.filter((name, i) => !commands.includes(name) || name === known[i + 1]),
  ];
  if (strangers.length > 0) {
    throw new Error(`gateway/api/kinesis/operations.ts and the SDK differ in: ${strangers.join(", ")}`);
  }
  const from = page.indexOf(BEGIN);
  const to = page.indexOf(END);
  if (from < 0 || to < from) throw new Error(`docs/reference/kinesis-api.md has lost its ${BEGIN}`);
  const offered = Object.entries(table.OFFERED).map(([name, { note }]) => `| ${name} | ${note} |`);
  const refused = Object.entries(table.REFUSED).map(([name, why]) => `| ${name} | ${why} |`);
  const made = `${BEGIN}
## Operations

Of the ${commands.length} operations that the SDK for JavaScript knows, ${offered.length} are offered.

| Operation | Notes |
| --- | --- |
${offered.sort().join("\n")}

### Not offered

These answer 400 \`UnknownOperationException\` with the message \`<Operation> is not offered by this
gateway: <why>.\`

| Operation | Why |
| --- | --- |
${refused.sort().join("\n")}

`;
  return page.slice(0, from) + made + page.slice(to);
}
