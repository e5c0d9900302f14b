/** What the page does not show, or the gateway could not read back, is said in the page: a real gateway's API and disk. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import type { StatementStatus } from "../../../gateway/analytics/analytics.ts";
import { launchBrowser } from "../../support/browser.ts";
import { removeFolder } from "../../support/remove-folder.ts";
import { KEY, openFixture } from "../api/api-fixture.ts";
import { makeLocalPlace } from "../streams/stores/local/local-place.ts";

const ROOT = import.meta.url.endsWith(".js") ? "../../../../" : "../../../";
const BUILD = fileURLToPath(new URL(`${ROOT}gateway/console/build.mjs`, import.meta.url));
const TIMEOUT_MS = 90_000;
/** More of one sensor than are kept of it. */
const READINGS = 8_000;

test("damage of a log, readings that were dropped and results that are too large are told", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "hw-console-"));
  const place = await makeLocalPlace();
  t.after(async () => {
    await place.remove();
    await removeFolder(folder);
  });
  execFileSync(process.execPath, [BUILD, folder]);

  let streams = await place.open();
  await streams.createStream({ name: "sensors", shards: 1, retentionHours: 24 });
  const record = (value: unknown) => ({ partitionKey: "barn", data: Buffer.from(JSON.stringify(value)) });
  for (let n = 0; n < 5; n++) await streams.append("sensors", [record({ text: `text-${n}` })]);
  await streams.close();
  const [path] = await place.segments();
  const log = await readFile(path!);
  log[log.indexOf("text-2")]! ^= 1;
  await writeFile(path!, log);
  streams = await place.open();
  await streams.createStream({ name: "means", shards: 1, retentionHours: 24 });
  const fixture = await openFixture({ api: { streams, metrics: place.metrics, consoleDir: folder } });
  const browser = await launchBrowser();
  t.after(async () => {
    await browser.close();
    await fixture.close();
    await streams.close();
  });
  const statement = { name: "m", input: "sensors", output: "means", state: "running", records: 0, late: 0 };
  fixture.statements.push({ ...statement, rejected: 0, results: 0 } as unknown as StatementStatus);
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(TIMEOUT_MS);

  await page.goto(fixture.origin);
  await page.fill("#access-key-id", KEY.id);
  await page.fill("#secret-access-key", KEY.secret);
  await page.press("#secret-access-key", "Enter");
  await page.waitForSelector("#health:has-text('the log of stream sensors is damaged')");
  await page.waitForSelector("#streams tr:has-text('damaged') >> text=/^sensors \\(\\d+ B damaged\\)$/");
  assert.doesNotMatch(await page.innerText("#streams tr:has-text('means')"), /damaged/);

  // All is there as yet.
  await streams.append("sensors", [record({ celsius: 1 })]);
  await streams.append("means", [record({ mean: 1 })]);
  fixture.statements[0] = { ...fixture.statements[0]!, results: 1 };
  await page.waitForSelector("#chart-detail:has-text('reading')");
  await page.waitForSelector("#windows tbody tr");
  assert.doesNotMatch(await page.innerText("#chart-detail"), /not all/);
  assert.doesNotMatch(await page.innerText("#windows-detail"), /not all/);

  for (let n = 0; n < READINGS; n += 500)
    await streams.append(
      "sensors",
      Array.from({ length: 500 }, (_, i) => record({ celsius: n + i })),
    );
  await streams.append("means", [record({ mean: "x".repeat(70_000) })]);
  fixture.statements[0] = { ...fixture.statements[0]!, results: 2 };
  await page.waitForSelector("#windows-detail:has-text('not all are shown')");
  await page.selectOption("#chart-span", "60");
  await page.waitForSelector("#chart-detail:has-text('not all before')");
});
