/**
 * Partial aggregates by DuckDB: a batch of columns goes in, one row for each key and window comes
 * out. One thread and a memory limit, as it runs inside the gateway. DuckDB is loaded when the engine
 * starts: a gateway without statements does not carry it.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { DuckDBConnection, DuckDBDataChunk, DuckDBInstance } from "@duckdb/node-api";
import type { Vector } from "@duckdb/node-bindings";
import { Turnstile } from "../../../runtime/turnstile.ts";
import type { ColumnBatch, MeasureKind } from "../columns.ts";
import type { GroupPartial, MeasurePartial } from "../panes.ts";

/** duckdb_vector_size(): a data chunk holds no more rows. */
const CHUNK_ROWS = 2_048;
const CHUNKS_A_TURN = 8;
const MEMORY_LIMIT = "256MB";
/** Measures of a query's rows, were each a group of its own: these take 60 MB, and what does not fit would never fit. */
const MAX_CELLS = 1_048_576;
const COLUMNS_BEFORE_MEASURES = 2;
const FIELDS_BEFORE_MEASURES = 3;
const FIELDS_A_MEASURE = 4;

async function loadLibrary() {
  const [api, bindings] = await Promise.all([import("@duckdb/node-api"), import("@duckdb/node-bindings")]);
  return { api, duckdb: bindings.default };
}

type Library = Awaited<ReturnType<typeof loadLibrary>>;

/** One in-memory database, shared by the statements of a gateway. */
export class PartialsEngine {
  #library: Library | undefined;
  #instance: DuckDBInstance | undefined;
  /** The memory is that of one query, and so is the thread: statements that read a backlog would all come at once. */
  readonly #oneAtATime = new Turnstile(1);

  async start(): Promise<void> {
    this.#library ??= await loadLibrary();
    this.#instance ??= await this.#library.api.DuckDBInstance.create(":memory:", {
      threads: "1",
      memory_limit: MEMORY_LIMIT,
      // It would spill into the folder that the gateway was started in.
      temp_directory: "",
    });
  }

  /** @param table unique among the engine's; letters and digits */
  async prepare(table: string, kinds: readonly MeasureKind[]): Promise<Partials> {
    const connection = await this.#instance!.connect();
    const columns = kinds.map((kind, i) => `, m${i} ${kind === "integer" ? "BIGINT" : "DOUBLE"}`);
    try {
      await connection.run(`CREATE TEMP TABLE ${table} (k INTEGER, p DOUBLE${columns.join("")})`);
      return new Partials(this.#library!, connection, table, kinds, this.#oneAtATime);
    } catch (error) {
      connection.closeSync();
      throw error;
    }
  }

  close(): void {
    this.#instance?.closeSync();
    this.#instance = undefined;
  }
}

export class Partials {
  /** As many rows fit into one query, whatever they hold. */
  readonly rowsAtOnce: number;
  readonly #duckdb: Library["duckdb"];
  readonly #connection: DuckDBConnection;
  readonly #table: string;
  readonly #kinds: readonly MeasureKind[];
  readonly #query: string;
  readonly #turns: Turnstile;
  readonly #chunk: DuckDBDataChunk;
  readonly #integers = new BigInt64Array(CHUNK_ROWS);
  readonly #validity = new BigUint64Array(CHUNK_ROWS / 64);

  constructor(
    { api, duckdb }: Library,
    connection: DuckDBConnection,
    table: string,
    kinds: readonly MeasureKind[],
    turns: Turnstile,
  ) {
    this.#turns = turns;
    this.#duckdb = duckdb;
    this.#connection = connection;
    this.#table = table;
    this.#kinds = kinds;
    this.rowsAtOnce = Math.floor(MAX_CELLS / (kinds.length + 1) / CHUNK_ROWS) * CHUNK_ROWS;
    const { BIGINT, DOUBLE, DuckDBDataChunk, INTEGER } = api;
    this.#chunk = DuckDBDataChunk.create([
      INTEGER,
      DOUBLE,
      ...kinds.map((kind) => (kind === "integer" ? BIGINT : DOUBLE)),
    ]);
    const aggregates = kinds.map(
      // fsum is Kahan's sum. An integer sum is a HUGEINT, so it cannot overflow.
      (kind, i) => `, count(m${i}), ${kind === "integer" ? "sum" : "fsum"}(m${i}), min(m${i}), max(m${i})`,
    );
    this.#query = `SELECT k, p, count(*)${aggregates.join("")} FROM ${table} GROUP BY k, p`;
  }

  /**
   * Of the rows from `from` on, `rowsAtOnce` of them. The batch may be cleared afterwards. After a failure
   * the next call starts afresh.
   */
  async aggregate(batch: ColumnBatch, from = 0): Promise<GroupPartial[]> {
    const to = Math.min(batch.rows, from + this.rowsAtOnce);
    if (from >= to) return [];
    return this.#turns.run(1, async () => {
      try {
        return await this.#aggregate(batch, from, to);
      } finally {
        // It would be kept for as long as the statement runs, of each of them.
        await this.#connection.run(`TRUNCATE ${this.#table}`);
      }
    });
  }

  async #aggregate(batch: ColumnBatch, from: number, to: number): Promise<GroupPartial[]> {
    const appender = await this.#connection.createAppender(this.#table);
    try {
      for (let at = from, chunks = 1; at < to; at += CHUNK_ROWS, chunks++) {
        this.#fill(batch, at, Math.min(CHUNK_ROWS, to - at));
        appender.appendDataChunk(this.#chunk);
        // A pack of the KPL may make a batch of a million rows, and the event loop is everybody's.
        if (chunks % CHUNKS_A_TURN === 0) await nextTurn();
      }
    } finally {
      appender.closeSync();
    }
    const result = await this.#connection.run(this.#query);
    const partials: GroupPartial[] = [];
    for (
      let chunk = await result.fetchChunk();
      chunk && chunk.rowCount > 0;
      chunk = await result.fetchChunk()
    ) {
      for (const row of chunk.getRows()) partials.push(this.#partial(batch, row));
      await nextTurn();
    }
    return partials;
  }

  close(): void {
    this.#connection.closeSync();
  }

  /** Writes through copy_data_to_vector: memory from vector_get_data silently loses what is set in it. */
  #fill(batch: ColumnBatch, from: number, rows: number): void {
    const duckdb = this.#duckdb;
    const chunk = this.#chunk.chunk;
    duckdb.data_chunk_reset(chunk);
    duckdb.data_chunk_set_size(chunk, rows);
    const copy = (column: number, source: Float64Array | Int32Array | BigInt64Array, at: number): void => {
      const width = source.BYTES_PER_ELEMENT;
      const vector = duckdb.data_chunk_get_vector(chunk, column);
      duckdb.copy_data_to_vector(vector, 0, source.buffer as ArrayBuffer, at * width, rows * width);
    };
    copy(0, batch.keyIds, from);
    copy(1, batch.paneMs, from);
    for (let i = 0; i < this.#kinds.length; i++) {
      const column = COLUMNS_BEFORE_MEASURES + i;
      const values = batch.measures[i]!;
      if (this.#kinds[i] === "integer") {
        for (let row = 0; row < rows; row++) this.#integers[row] = BigInt(values[from + row]!);
        copy(column, this.#integers, 0);
      } else copy(column, values, from);
      this.#fillValidity(duckdb.data_chunk_get_vector(chunk, column), batch.present[i]!, from, rows);
    }
  }

  #fillValidity(vector: Vector, present: Uint8Array, from: number, rows: number): void {
    const words = Math.ceil(rows / 64);
    for (let word = 0; word < words; word++) {
      let bits = 0n;
      const end = Math.min(64, rows - word * 64);
      for (let bit = 0; bit < end; bit++) if (present[from + word * 64 + bit]) bits |= 1n << BigInt(bit);
      this.#validity[word] = bits;
    }
    this.#duckdb.vector_ensure_validity_writable(vector);
    this.#duckdb.copy_data_to_vector_validity(vector, 0, this.#validity.buffer as ArrayBuffer, 0, words * 8);
  }

  #partial(batch: ColumnBatch, row: readonly unknown[]): GroupPartial {
    const measures = this.#kinds.map((kind, i): MeasurePartial => {
      const at = FIELDS_BEFORE_MEASURES + i * FIELDS_A_MEASURE;
      const count = Number(row[at]);
      const zero = kind === "integer" ? 0n : 0;
      if (count === 0) return { count, sum: zero, min: 0, max: 0 };
      return {
        count,
        sum: row[at + 1] as number | bigint,
        min: Number(row[at + 2]),
        max: Number(row[at + 3]),
      };
    });
    const id = row[0] as number;
    const key = batch.keys[id]!;
    return { keyName: batch.keyNames[id]!, key, paneMs: row[1] as number, rows: Number(row[2]), measures };
  }
}
