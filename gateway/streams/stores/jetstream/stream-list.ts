/** What all streams are: one document on the cluster, and this gateway's copy of it. */
import type { RateLimits, RegisteredReader, StreamMode } from "../../streams.ts";
import type { Documents } from "./documents.ts";
import type { MapContent } from "./shard-history.ts";

const KEY = "streams";

export interface StreamRecord {
  readonly name: string;
  /** 32 hex digits; names the JetStream stream. */
  readonly streamId: string;
  readonly createdMs: number;
  readonly retentionHours: number;
  readonly mode: StreamMode;
  readonly limits: RateLimits;
  readonly maxRecordBytes: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly readers: readonly RegisteredReader[];
  /** Kept here too, as retention takes the log's own map messages. */
  readonly map: MapContent;
}

export type StreamRecords = Readonly<Record<string, StreamRecord>>;

export class StreamList {
  readonly #documents: Documents;
  #records: StreamRecords = {};
  #revision = -1;

  constructor(documents: Documents) {
    this.#documents = documents;
  }

  get records(): StreamRecords {
    return this.#records;
  }

  /** @returns whether anything changed */
  async refresh(): Promise<boolean> {
    const { revision, value } = await this.#documents.get<StreamRecords>(KEY);
    if (revision <= this.#revision) return false;
    this.#revision = revision;
    this.#records = value ?? {};
    return true;
  }

  /** Repeats `change` until no other gateway came between. What it throws ends it. */
  async update(change: (records: StreamRecords) => StreamRecords): Promise<void> {
    await this.#documents.update<StreamRecords>(KEY, (records) => change(records ?? {}));
    await this.refresh();
  }

  /** @param change undefined removes it; not called where the stream is gone or is another of this name */
  async updateStream(
    name: string,
    streamId: string,
    change: (record: StreamRecord) => StreamRecord | undefined,
  ): Promise<void> {
    await this.update((records) => {
      const record = records[name];
      if (record?.streamId !== streamId) return records;
      const { [name]: _, ...others } = records;
      const changed = change(record);
      return changed === undefined ? others : { ...others, [name]: changed };
    });
  }
}
