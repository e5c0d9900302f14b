import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { pause } from "../../../runtime/backoff.ts";
import { launchBrowser } from "../../support/browser.ts";
import { makeFootage } from "./prepared-footage.ts";
import { HOSTILE, KEY_ID, PreparedGateway, SECRET } from "./prepared-gateway.ts";

/** Compiled, this file is one folder deeper; the page is always bundled from its sources. */
const ROOT = import.meta.url.endsWith(".js") ? "../../../../" : "../../../";
const BUILD = fileURLToPath(new URL(`${ROOT}gateway/console/build.mjs`, import.meta.url));
const DESKTOP = { width: 1_360, height: 1_000 };
const PHONE = { width: 390, height: 844 };
/** A machine that is busy with other things may draw slowly; what waits goes on as soon as it can. */
const TIMEOUT_MS = 90_000;
/** Of a request that is under way as the gateway goes, too. */
const EXPECTED = /401|net::ERR_(CONNECTION_\w+|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)|WebSocket/;

let folder: string;
let browser: Browser;
let footage: ReturnType<typeof makeFootage>;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "hw-console-"));
  execFileSync(process.execPath, [BUILD, folder]);
  // Longer than any of these tests waits for its pictures.
  footage = makeFootage(60);
  browser = await launchBrowser();
});

after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Visit {
  readonly page: Page;
  readonly gateway: PreparedGateway;
  /** What the browser complained about, among it every breach of the content security policy. */
  readonly complaints: string[];
}

async function visit(t: TestContext, options: BrowserContextOptions = {}, signIn = true): Promise<Visit> {
  const gateway = new PreparedGateway(folder, footage);
  await gateway.start();
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !EXPECTED.test(message.text())) {
      complaints.push(message.text());
    }
  });
  t.after(async () => {
    await context.close();
    await gateway.close();
  });
  await page.goto(gateway.address);
  if (signIn) {
    await page.fill("#access-key-id", KEY_ID);
    await page.fill("#secret-access-key", SECRET);
    await page.press("#secret-access-key", "Enter");
    await page.waitForSelector("#page:not([hidden])");
  }
  return { page, gateway, complaints };
}

/** Kept for a look when the folder for it is there. */
async function picture(page: Page, name: string, fullPage = true): Promise<void> {
  const place = process.env.HEADWATER_SCREENSHOTS;
  if (place !== undefined) await page.screenshot({ path: join(place, `${name}.png`), fullPage });
}

// What runs in the page is given as text: these files are checked without the browser's types.
const READINGS = `Number(/([\\d,]+) readings?/.exec(document.querySelector("#chart-detail").textContent)?.[1].replace(",", ""))`;
const LAYOUT_SHIFT = `new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) sum += entry.value;
  }).observe({ type: "layout-shift", buffered: false });
  setTimeout(() => resolve(sum), 3_500);
})`;
const pretendHidden = (hidden: boolean) => `
  Object.defineProperty(document, "hidden", { value: ${hidden}, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));`;

/** Asks again and again from outside: inside, the page's own policy forbids to evaluate text. */
async function until(page: Page, expression: string, timeoutMs = TIMEOUT_MS): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!(await page.evaluate(expression))) {
    assert.ok(Date.now() < endMs, `not within ${timeoutMs} ms: ${expression}`);
    await pause(50);
  }
}

const text = (page: Page, selector: string) =>
  page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).innerText`);

test("a wrong key is refused in words, a good one opens the page, signing out closes it", async (t) => {
  const { page, complaints } = await visit(t, {}, false);
  await page.waitForSelector("#sign-in:not([hidden])");
  await picture(page, "sign-in");
  await page.fill("#access-key-id", KEY_ID);
  await page.fill("#secret-access-key", "wrong");
  await page.click("#sign-in button");
  await page.waitForSelector("#sign-in-error:has-text('does not know')");
  await page.fill("#secret-access-key", SECRET);
  await page.click("#sign-in button");
  await page.waitForSelector("#page:not([hidden])");
  assert.equal(await page.locator("#sign-in").isVisible(), false);
  await page.click("#sign-out");
  await page.waitForSelector("#sign-in:not([hidden])");
  assert.equal(await page.inputValue("#secret-access-key"), "");
  assert.deepEqual(complaints, []);
});

test("a sign-in link that was used before says so", async (t) => {
  const { page, gateway } = await visit(t, {}, false);
  await page.goto("about:blank");
  await page.goto(`${gateway.address}/#link-expired`);
  await page.waitForSelector("#sign-in-error:has-text('used before')");
});

test("every view shows what the gateway says, and nothing in it becomes markup", async (t) => {
  const { page, complaints } = await visit(t);
  await until(page, `document.querySelectorAll("#files tbody tr").length === 10`);
  await page.waitForSelector("#windows tbody tr");
  assert.match(await text(page, "#devices"), /Record buffer\s+\d+ records, 2\.3 KiB of 1\.0 GiB/);
  assert.match(await text(page, "#devices"), /Footage buffer\s+1 piece, /);
  assert.match(await text(page, "#streams"), /sensors\s+0\s+1\d\.\d\/s/);
  assert.match(await text(page, "#consumers"), /delivery\/archive\s+sensors\s+310/);
  assert.match(await text(page, "#deliveries"), /files \/srv\/headwater\/archive/);
  assert.match(await text(page, "#tiles"), /Devices\s+2\s+all connected/);
  assert.match(await text(page, "#health"), /All is well/);
  // The hostile name stands in devices, sensors, fields, windows and files, letter by letter.
  for (const place of ["#devices", "#files", "#windows"]) {
    assert.ok((await text(page, place)).includes(HOSTILE), place);
  }
  await until(
    page,
    `(() => {
    const name = ${JSON.stringify(HOSTILE)};
    const options = (id) => [...document.querySelectorAll("#" + id + " option")].map((o) => o.textContent);
    return options("chart-sensor").some((o) => o.includes(name)) && options("chart-field").includes(name);
  })()`,
  );
  assert.equal(await page.evaluate(`"injected" in window`), false);
  assert.equal(await page.locator("img").count(), 0);
  assert.deepEqual(complaints, []);
});

test("a store that cannot be reached and a stream that is damaged or cannot be written are told in the header", async (t) => {
  const { page, gateway, complaints } = await visit(t);
  await page.waitForSelector("#health:has-text('All is well')");
  gateway.ill = true;
  await page.waitForSelector("#health:has-text('stream sensors cannot be written: no space left')");
  assert.match(await text(page, "#health"), /the log of stream sensors is damaged/);
  await page.waitForSelector("#streams:has-text('sensors (4.0 KiB damaged, cannot be written)')");
  gateway.ill = false;
  gateway.unreachable = "the NATS cluster does not answer";
  await page.waitForSelector("#health:has-text('the NATS cluster does not answer')");
  gateway.unreachable = null;
  await page.waitForSelector("#health:has-text('All is well')");
  assert.deepEqual(complaints, []);
});

test("one part that cannot be asked for does not say that the gateway is away", async (t) => {
  const { page } = await visit(t);
  await page.waitForSelector("#health:has-text('All is well')");
  await page.route("**/api/sensors?*", (route) => route.fulfill({ status: 500, json: {} }));
  await page.waitForSelector("#health:has-text('A part of this page cannot be shown')");
  assert.equal(await page.locator("#page[data-lost]").count(), 0);
  await page.unroute("**/api/sensors?*");
  await page.waitForSelector("#health:has-text('All is well')");
});

test("the chart shows the past and goes on live, also for another sensor", async (t) => {
  const { page, complaints } = await visit(t);
  // Live ones may come before the past.
  await until(page, `${READINGS} >= 270`);
  const first = Number(await page.evaluate(READINGS));
  await until(page, `${READINGS} > ${first}`);
  assert.match(await text(page, "#chart-value"), /^\d+(\.\d+)?$/);
  assert.equal(await page.locator("#chart canvas").count(), 1);
  await page.selectOption("#chart-sensor", { label: `barn-pi/${HOSTILE}` });
  await page.selectOption("#chart-field", { label: "humidity" });
  await until(page, `document.querySelector("#chart-value").textContent === "55"`);
  await page.selectOption("#chart-span", "60");
  await until(page, `${READINGS} < 200`);
  assert.deepEqual(complaints, []);
});

test("the camera plays, says how far it is behind, and comes back after a break", async (t) => {
  const { page, gateway, complaints } = await visit(t);
  const plays = () =>
    until(
      page,
      `document.querySelector("video").currentTime > 1 &&
        /^0\\.\\d s behind$/.test(document.querySelector("#camera-latency").textContent)`,
    );
  await plays();
  await page.waitForSelector("#camera-message", { state: "hidden" });
  await until(page, `document.querySelectorAll("#camera-footage a").length === 4`);
  await picture(page, "light");
  await gateway.close();
  await page.waitForSelector("#health:has-text('Connection lost, retrying')");
  await page.waitForSelector("#camera-message:has-text('retrying')");
  await picture(page, "lost", false);
  await gateway.start();
  await page.waitForSelector("#health:has-text('All is well')");
  await plays();
  gateway.cameraLive = false;
  await page.waitForSelector("#camera-message:has-text('sends no picture now')");
  await page.waitForSelector("#health:has-text('is not live')");
  assert.deepEqual(complaints, []);
});

test("an empty gateway says what to do next", async (t) => {
  const { page, gateway, complaints } = await visit(t, {}, false);
  gateway.empty = true;
  await page.fill("#access-key-id", KEY_ID);
  await page.fill("#secret-access-key", SECRET);
  await page.click("#sign-in button");
  await page.waitForSelector("#devices-empty:not([hidden])");
  const said = await text(page, "#page");
  for (const hint of [
    "No device yet",
    "No stream yet",
    "No camera yet",
    "No delivery yet",
    "No statement yet",
    "No file yet",
  ]) {
    assert.ok(said.includes(hint), hint);
  }
  await picture(page, "empty");
  assert.deepEqual(complaints, []);
});

test("it fits a phone and keeps still from second to second, in light and in dark", async (t) => {
  for (const colorScheme of ["light", "dark"] as const) {
    for (const [name, viewport] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
      const { page } = await visit(t, { colorScheme, viewport });
      await page.waitForSelector("#windows tbody tr");
      await page.waitForSelector("#camera-footage a");
      await until(page, `${READINGS} >= 270`);
      await until(page, `document.querySelector("video").currentTime > 1`);
      await picture(page, `${colorScheme}-${name}`);
      // What comes late on a busy machine moves something once; what moves from second to second never rests.
      let shift = Number.POSITIVE_INFINITY;
      for (let look = 0; look < 5 && shift >= 0.001; look++)
        shift = Number(await page.evaluate(LAYOUT_SHIFT));
      assert.ok(shift < 0.001, `layout shift ${shift}, ${colorScheme} ${name}`);
      const wider = await page.evaluate(
        `document.documentElement.scrollWidth - document.documentElement.clientWidth`,
      );
      assert.equal(wider, 0, `wider than the screen, ${name}`);
      await page.context().close();
    }
  }
});

test("nothing is asked for while nobody looks", async (t) => {
  const { page, gateway } = await visit(t);
  await page.waitForSelector("#windows tbody tr");
  await page.evaluate(pretendHidden(true));
  // One may be under way.
  let polls = -1;
  for (let tries = 0; polls !== gateway.polls && tries < 5; tries++) {
    polls = gateway.polls;
    await page.waitForTimeout(2_500);
  }
  assert.equal(gateway.polls, polls);
  await page.evaluate(pretendHidden(false));
  for (const endMs = Date.now() + TIMEOUT_MS; gateway.polls === polls; await pause(50)) {
    assert.ok(Date.now() < endMs, "it never asks again");
  }
});

test("headings, captions, labels and live regions are there for a screen reader", async (t) => {
  const { page } = await visit(t);
  await page.waitForSelector("#windows tbody tr");
  const found = (await page.evaluate(`(() => {
    const all = (selector) => [...document.querySelectorAll(selector)];
    return {
      h1: all("h1").length,
      tables: all("table").length,
      captions: all("table > caption").length,
      unlabelled: all("select, input").filter((e) => e.labels.length === 0).length,
      untitled: all("section").filter((e) => !document.getElementById(e.getAttribute("aria-labelledby"))).length,
      live: document.querySelector("#health").getAttribute("aria-live"),
    };
  })()`)) as Record<string, unknown>;
  assert.equal(found.h1, 1);
  assert.ok(Number(found.tables) >= 6);
  assert.equal(found.captions, found.tables);
  assert.equal(found.unlabelled, 0);
  assert.equal(found.untitled, 0);
  assert.equal(found.live, "polite");
  await page.reload();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(`document.activeElement.className`), "skip");
});
