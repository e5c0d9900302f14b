/** A card for each device: is it there, what waits in its buffers, how are its sources. */
import type { BufferStatus, DeviceStatus, SourceStatus } from "./contract.ts";
import { DataTable } from "./data-table.ts";
import { byId, element, KeyedChildren, setText, setTone, type Tone } from "./elements.ts";
import * as units from "./units.ts";

const SOURCE_TONE: Readonly<Record<SourceStatus["state"], Tone>> = {
  running: "good",
  waiting: "warn",
  stalled: "bad",
  stopped: "quiet",
};

/** How full a buffer is, as a bar and in words. */
class BufferBar {
  readonly root: HTMLElement;
  readonly #bar = element("div", { class: "bar-fill" });
  readonly #meter: HTMLElement;
  readonly #waiting = element("span");
  readonly #age = element("span", { class: "quiet" });
  readonly #thing: string;

  constructor(title: string, thing: string) {
    this.#thing = thing;
    const attributes = { role: "meter", "aria-label": title, "aria-valuemin": "0", "aria-valuemax": "100" };
    this.#meter = element("div", { class: "bar", attributes }, this.#bar);
    const head = element("div", { class: "bar-head" }, element("strong", { text: title }), this.#waiting);
    this.root = element("div", { class: "buffer" }, head, this.#meter, this.#age);
  }

  update(buffer: BufferStatus | undefined): void {
    this.root.hidden = buffer === undefined;
    if (buffer === undefined) return;
    const share = buffer.maxBytes > 0 ? Math.min(1, buffer.waitingBytes / buffer.maxBytes) : 0;
    const percent = share * 100;
    this.#bar.style.width = `${percent.toFixed(2)}%`;
    setTone(this.#bar, share > 0.9 ? "bad" : share > 0.6 ? "warn" : undefined);
    this.#meter.setAttribute("aria-valuenow", percent.toFixed(0));
    const { waitingRecords, waitingBytes, maxBytes, oldestAgeMs, droppedRecords } = buffer;
    setText(
      this.#waiting,
      `${units.counted(waitingRecords, this.#thing)}, ${units.bytes(waitingBytes)} of ${units.bytes(maxBytes)}`,
    );
    const oldest = waitingRecords === 0 ? "nothing waits" : `oldest ${units.duration(oldestAgeMs)}`;
    setText(this.#age, droppedRecords > 0 ? `${oldest}; ${units.count(droppedRecords)} dropped` : oldest);
    setTone(this.#age, droppedRecords > 0 ? "bad" : undefined);
  }
}

class DeviceCard {
  readonly root: HTMLElement;
  readonly #name = element("h3");
  readonly #state = element("span", { class: "pill" });
  readonly #facts = element("p", { class: "quiet facts" });
  readonly #records = new BufferBar("Record buffer", "record");
  readonly #footage = new BufferBar("Footage buffer", "piece");
  readonly #plain = element("p", {
    class: "quiet",
    text: "A plain MQTT client: it has no buffer of its own.",
  });
  readonly #sources: DataTable;

  constructor(device: DeviceStatus) {
    setText(this.#name, device.device);
    this.#sources = new DataTable(
      `Sources of ${device.device}`,
      [
        { title: "Source" },
        { title: "State" },
        { title: "Records", numeric: true },
        { title: "Rejected", numeric: true },
        { title: "Last error", wide: true },
      ],
      "No source yet: add one under sources in agent.yaml.",
    );
    const head = element("div", { class: "card-head" }, this.#name, this.#state);
    const buffers = element("div", { class: "buffers" }, this.#records.root, this.#footage.root);
    this.root = element(
      "article",
      { class: "card device" },
      head,
      this.#facts,
      buffers,
      this.#plain,
      this.#sources.root,
    );
  }

  update({ connected, status, ...device }: DeviceStatus, nowMs: number): void {
    setText(this.#state, connected ? "connected" : `away, seen ${units.ago(nowMs - device.lastSeenMs)}`);
    setTone(this.#state, connected ? "good" : "bad");
    const facts = [`${units.counted(device.records, "record")} received`];
    facts.push(`${units.counted(device.duplicateFrames, "frame")} sent again and recognised`);
    if (device.missedFrames > 0) facts.push(`${units.counted(device.missedFrames, "frame")} missed`);
    if (status !== undefined)
      facts.push(`agent ${status.version}, ${units.bytes(status.residentBytes)} of memory`);
    setText(this.#facts, facts.join(" · "));
    setTone(this.#facts, device.missedFrames > 0 ? "bad" : undefined);
    this.#records.update(status?.buffer);
    this.#footage.update(status?.footage);
    this.#plain.hidden = status !== undefined;
    this.#sources.root.hidden = status === undefined;
    this.#sources.update(
      (status?.sources ?? []).map((source) => ({
        key: source.name,
        cells: [
          `${source.name} (${source.type})`,
          { text: source.state, tone: SOURCE_TONE[source.state] },
          units.count(source.records),
          source.rejected > 0 ? { text: units.count(source.rejected), tone: "warn" } : "0",
          source.lastError ?? "–",
        ],
      })),
    );
  }
}

export class DevicesView {
  readonly #empty = byId("devices-empty");
  readonly #cards = new KeyedChildren<DeviceStatus, DeviceCard>(
    byId("devices"),
    (device) => new DeviceCard(device),
  );

  update(devices: readonly DeviceStatus[], nowMs: number): void {
    this.#empty.hidden = devices.length > 0;
    this.#cards.update(
      devices,
      ({ device }) => device,
      (card, device) => card.update(device, nowMs),
    );
  }
}
