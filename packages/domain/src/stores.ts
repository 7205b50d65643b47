/**
 * The two SQL stores as services see them. SQL is written by the service that owns the question; an adapter only
 * carries it. Both adapters of a store run the same statements and the same migrations.
 */

/** A value of a row to insert: text for decimals and 64-bit integers, numbers below 2^53, arrays of text. */
export type AnalyticsValue = string | number | bigint | readonly string[];

/** The analytics store: ClickHouse, as a server or in the process. */
export interface AnalyticsStore {
  /**
   * Inserts rows as one statement, durable when it resolves (fsync), with every deduplication setting of
   * ClickHouse off. DateTime64(3) columns take epoch milliseconds as a number, DateTime columns epoch seconds,
   * Decimal and UInt64 columns decimal text, bigint or numbers below 2^53; Array(String) an array of text.
   * Nothing may change the rows until it resolves.
   * Safe to repeat: by the caller's keys, not by the store; an error leaves any part inserted.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry). InvariantError for a value that its column cannot hold
   * (beyond its range, too many fraction digits, not whole, no number, no such name); nothing was sent.
   */
  insert(input: {
    table: string;
    columns: readonly string[];
    rows: readonly (readonly AnalyticsValue[])[];
  }): Promise<void>;
  /**
   * Runs one SELECT and returns every row as an object; Decimal and 64-bit integers arrive as decimal text, arrays as
   * arrays, DateTime as text in UTC (use toUnixTimestamp / toUnixTimestamp64Milli where a number is wanted).
   * `params` bind ClickHouse's `{name:Type}` placeholders; values never become part of the SQL.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
   */
  select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]>;
  /**
   * Runs one SELECT for millions of rows: visits them as RowBinary bytes in the engine's order, piece by piece; one row may
   * end in the next piece. The next piece is asked for when `visit` has resolved, and the one before is no longer valid.
   * Limits of {@link select} hold for each statement, so page. `params` as there.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); any part may have been visited. What `visit` throws, unchanged.
   */
  scan(
    sql: string,
    params: Readonly<Record<string, unknown>>,
    visit: (bytes: Uint8Array) => void | Promise<void>,
  ): Promise<void>;
  /** Runs one statement without a result (DDL). Used by migrations. */
  execute(sql: string): Promise<void>;
}

/** A running transaction or the store itself: what a statement can be sent to. */
export interface SqlRunner {
  /**
   * One statement with `$1` parameters; rows as objects, bigint and numeric columns as text, timestamptz as Date,
   * jsonb parsed, bytea as Buffer.
   */
  query<Row>(sql: string, params?: readonly unknown[]): Promise<Row[]>;
}

/** The control store: PostgreSQL, as a server or in the process. */
export interface ControlStore extends SqlRunner {
  /**
   * Runs `body` in one serializable-or-stricter transaction: commits when it resolves, rolls back when it throws.
   * `body` may be called again after a serialization failure (at most 5 times), so it must have no other effect.
   */
  transaction<Result>(body: (tx: SqlRunner) => Promise<Result>): Promise<Result>;
  /** Runs a migration script of several statements. */
  execute(script: string): Promise<void>;
}
