import { type Browser, chromium } from "playwright-core";

/** Debian's Chromium, without a window, also as root. A busy machine may take long to start it, and for all that it does. */
const FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"];
const START_WITHIN_MS = 120_000;

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    timeout: START_WITHIN_MS,
  });
}
