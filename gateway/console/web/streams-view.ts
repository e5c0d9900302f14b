/** Streams with the records of each shard, and how far behind their consumers are. */
import type { ShardState, StreamState } from "./contract.ts";
import { DataTable } from "./data-table.ts";
import { byId } from "./elements.ts";
import { Sparkline } from "./sparkline.ts";
import * as units from "./units.ts";

export class StreamsView {
  readonly #shards = new DataTable(
    "Shards of all streams",
    [
      { title: "Stream" },
      { title: "Shard" },
      { title: "Records in", numeric: true },
      { title: "Last minute" },
      { title: "Records kept", numeric: true },
      { title: "On disk", numeric: true },
      { title: "Retention", numeric: true },
    ],
    "No stream yet: add one under streams in gateway.yaml, or call CreateStream.",
  );
  readonly #consumers = new DataTable(
    "Consumers and how far they are behind",
    [{ title: "Consumer" }, { title: "Stream" }, { title: "Records behind", numeric: true }],
    "No consumer yet: add a delivery or an analytics statement to gateway.yaml.",
  );
  readonly #sparklines = new Map<string, Sparkline>();

  constructor() {
    byId("streams").replaceChildren(this.#shards.root);
    byId("consumers").replaceChildren(this.#consumers.root);
  }

  update(streams: readonly StreamState[]): void {
    this.#shards.update(streams.flatMap((stream) => stream.shards.map((shard) => this.#row(stream, shard))));
    this.#consumers.update(
      streams.flatMap(({ name: stream, consumers }) =>
        consumers.map(({ name, behind }) => ({
          key: `${stream}/${name}`,
          cells: [name, stream, units.count(behind)],
        })),
      ),
    );
  }

  #row(stream: StreamState, shard: ShardState) {
    const key = `${stream.name}/${shard.shardId}`;
    const sparkline = this.#sparklines.get(key) ?? new Sparkline();
    this.#sparklines.set(key, sparkline);
    sparkline.push(shard.recordsPerSecond);
    const { name, damagedBytes, refusing } = stream;
    // The shards of a stream share its log.
    const faults = [
      ...(damagedBytes > 0 ? [`${units.bytes(damagedBytes)} damaged`] : []),
      ...(refusing === null ? [] : ["cannot be written"]),
    ];
    return {
      key,
      cells: [
        faults.length > 0 ? { text: `${name} (${faults.join(", ")})`, tone: "bad" as const } : name,
        // `shardId-000000000003`: the zeros only tire the eye.
        `${shard.shardId.replace(/^shardId-0*(?=\d)/, "")}${shard.open === false ? " (closed)" : ""}`,
        units.rate(shard.recordsPerSecond),
        { node: sparkline.root },
        units.count(shard.records),
        units.bytes(shard.storedBytes),
        `${stream.retentionHours} h`,
      ],
    };
  }
}
