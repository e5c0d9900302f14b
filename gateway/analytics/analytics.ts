/**
 * Analytics: continuous statements in Flink's SQL dialect. Each reads a stream as a consumer and
 * writes its results to a stream, once.
 *
 *   stream ─read→ decode into columns → panes (DuckDB) → watermark closes windows → result stream
 */

export interface StatementStatus {
  readonly name: string;
  readonly sql: string;
  readonly input: string;
  readonly output: string;
  /** `failed` is for good, until somebody acts on `lastError`. While it tries again it is `running`. */
  readonly state: "running" | "failed";
  readonly records: number;
  /** Records that came after their window had closed. */
  readonly late: number;
  /** Records that could not be decoded. */
  readonly rejected: number;
  readonly results: number;
  /** Records that retention removed before they were read: missing from the results. */
  readonly trimmed: number;
  /** Records between a checkpoint that was restored from a backup and where the reading had got to: missing as well. */
  readonly skipped: number;
  /** µs since 1970 UTC; undefined before the first record. */
  readonly watermarkUs: number | undefined;
  readonly lastError?: string;
  /** Its last try failed, and not for want of a stream, nor because another gateway runs it. */
  readonly failing: boolean;
}

export interface Analytics {
  start(): Promise<void>;
  /** Safe to call twice. */
  close(): Promise<void>;
  status(): StatementStatus[];
}
