/**
 * A record batch (record-batch.ts) that is put together record by record and then written straight to
 * where it is to stand: the agent's group commits make no copy of their records on the way into a
 * frame. `encodeBatch` is the plain way to the same bytes.
 */
import { BATCH_HEAD_BYTES, RECORD_HEAD_BYTES, RUN_OVERHEAD_BYTES, writeUInt53 } from "./record-batch.ts";

/** What will be one run. */
interface Gathered {
  readonly key: string;
  readonly keyBytes: number;
  bodyBytes: number;
  readonly timesUs: number[];
  readonly payloads: Uint8Array[];
}

export class BatchBuilder {
  readonly #runs = new Map<string, Gathered>();
  /** Of the whole batch, as it will be written. */
  bytes = BATCH_HEAD_BYTES;
  records = 0;
  /** Of the payloads alone. */
  payloadBytes = 0;

  /** How many partition keys there are. */
  get runs(): number {
    return this.#runs.size;
  }

  /** The order of the records of a key is kept. @param payload not to be written to until `writeTo` */
  add(key: string, timeUs: number, payload: Uint8Array): void {
    let run = this.#runs.get(key);
    if (run === undefined) {
      run = { key, keyBytes: Buffer.byteLength(key), bodyBytes: 0, timesUs: [], payloads: [] };
      this.#runs.set(key, run);
      this.bytes += RUN_OVERHEAD_BYTES + run.keyBytes;
    }
    const bytes = RECORD_HEAD_BYTES + payload.length;
    run.bodyBytes += bytes;
    run.timesUs.push(timeUs);
    run.payloads.push(payload);
    this.bytes += bytes;
    this.payloadBytes += payload.length;
    this.records++;
  }

  /** Takes `bytes` bytes from `from` on. @returns where it ends */
  writeTo(memory: Buffer, from: number): number {
    let tableBytes = 0;
    for (const run of this.#runs.values()) tableBytes += RUN_OVERHEAD_BYTES + run.keyBytes;
    memory.writeUInt32BE(this.#runs.size, from);
    memory.writeUInt32BE(tableBytes, from + 4);
    let at = from + BATCH_HEAD_BYTES;
    for (const { key, keyBytes, bodyBytes, payloads } of this.#runs.values()) {
      memory.writeUInt16BE(keyBytes, at);
      memory.writeUInt32BE(payloads.length, at + 2);
      memory.writeUInt32BE(bodyBytes, at + 6);
      memory.write(key, at + RUN_OVERHEAD_BYTES);
      at += RUN_OVERHEAD_BYTES + keyBytes;
    }
    for (const { timesUs, payloads } of this.#runs.values()) {
      for (let i = 0; i < payloads.length; i++) {
        const payload = payloads[i]!;
        memory.writeUInt32BE(payload.length, at);
        writeUInt53(memory, timesUs[i]!, at + 4);
        memory.set(payload, at + RECORD_HEAD_BYTES);
        at += RECORD_HEAD_BYTES + payload.length;
      }
    }
    return at;
  }
}
