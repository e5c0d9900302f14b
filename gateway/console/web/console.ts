/**
 * The console page: asks the gateway for its state each second while it is looked at, and shows it.
 *
 *   /api/state each second → overview, devices, streams, windows, deliveries
 *   websockets → chart, camera
 */
import { CameraView } from "./camera-view.ts";
import { ChartView } from "./chart-view.ts";
import { DeliveriesView } from "./deliveries-view.ts";
import { DevicesView } from "./devices-view.ts";
import { byId } from "./elements.ts";
import { fetchState, SignedOutError, signOut } from "./gateway-client.ts";
import { Overview } from "./overview.ts";
import { SignInForm } from "./sign-in.ts";
import { StreamsView } from "./streams-view.ts";
import { WindowsView } from "./windows-view.ts";

const POLL_MS = 1_000;

class Console {
  readonly #page = byId("page");
  readonly #signOut = byId<HTMLButtonElement>("sign-out");
  readonly #overview = new Overview();
  readonly #chart = new ChartView();
  readonly #camera = new CameraView();
  readonly #devices = new DevicesView();
  readonly #streams = new StreamsView();
  readonly #windows = new WindowsView();
  readonly #deliveries = new DeliveriesView();
  readonly #signIn = new SignInForm(() => {
    // The form that had the focus is gone.
    byId("main").focus();
    void this.#poll();
  });
  #timer: number | undefined;
  #polling = false;

  start(): void {
    this.#signOut.addEventListener("click", () => {
      signOut()
        .catch(() => {})
        .finally(() => this.#poll());
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#rest();
      else void this.#poll();
    });
    void this.#poll();
  }

  /** Nobody looks: no polling, no websockets. */
  #rest(): void {
    clearTimeout(this.#timer);
    this.#chart.stop();
    this.#camera.stop();
  }

  async #poll(): Promise<void> {
    if (this.#polling) return;
    this.#polling = true;
    clearTimeout(this.#timer);
    const startedMs = performance.now();
    try {
      await this.#refresh();
    } catch (error) {
      if (error instanceof SignedOutError) this.#showSignIn();
      else this.#showLost();
    }
    this.#polling = false;
    if (document.hidden || this.#signIn.isShown) return;
    this.#timer = window.setTimeout(
      () => void this.#poll(),
      Math.max(100, POLL_MS - (performance.now() - startedMs)),
    );
  }

  async #refresh(): Promise<void> {
    const state = await fetchState();
    this.#signIn.hide();
    this.#signOut.hidden = false;
    this.#page.hidden = false;
    delete this.#page.dataset.lost;
    this.#overview.update(state);
    this.#devices.update(state.devices, state.nowMs);
    this.#streams.update(state.streams);
    this.#deliveries.update(state.deliveries, state.objects, state.nowMs);
    // What each of them asks for beyond the state may fail without hurting the others.
    const asked = await Promise.allSettled([
      this.#chart.update(state),
      this.#windows.update(state.statements, state.nowMs),
      this.#camera.update(state),
    ]);
    if (document.hidden) this.#rest();
    const reasons = asked.flatMap((result) =>
      result.status === "rejected" ? [result.reason as unknown] : [],
    );
    for (const reason of reasons) if (reason instanceof SignedOutError) throw reason;
    // The gateway is there: it answered with the state.
    if (reasons.length > 0) this.#overview.say("A part of this page cannot be shown, retrying", "warn");
  }

  #showSignIn(): void {
    this.#rest();
    this.#page.hidden = true;
    this.#signOut.hidden = true;
    this.#overview.say("Not signed in", "quiet");
    this.#signIn.show();
  }

  #showLost(): void {
    this.#page.dataset.lost = "";
    this.#overview.say("Connection lost, retrying", "bad");
  }
}

new Console().start();
