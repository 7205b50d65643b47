/** A value of a ClickHouse setting: numbers for numeric and boolean ones. */
type SettingValue = string | number;
/** Settings of one connection, by name. */
export type Settings = Readonly<Record<string, SettingValue>>;

/** Longest run of one SELECT in the engine, seconds; the engine stops it. An aggregator reads some 140 M rows in it. */
export const SELECT_TIME_MAX_SECONDS = 60;
/** The same of one SELECT in the background: an audit's statements may group hundreds of thousands of rows on a busy machine. */
export const BACKGROUND_SECONDS_MAX = 600;
/** Most rows of one answer: each becomes a JavaScript object (about 0.5 KB), so more would be 5 GB. Page instead. */
const SELECT_ROWS_MAX = 10_000_000;

/**
 * Settings of every insert: an acknowledged row is stored, and the store never takes a row for a duplicate. The
 * caller's keys decide that; a deduplicating store would swallow the replay after a dropped partition or a restore.
 *
 * `deduplicate_insert` is what 26.7 obeys, `insert_deduplicate` what older servers know.
 * @see design exactly-once.md §1, measured on 26.7.2
 */
export const WRITER_SETTINGS: Settings = {
  async_insert: 0,
  wait_for_async_insert: 1,
  deduplicate_insert: "disable",
  deduplicate_insert_select: "disable",
  insert_deduplicate: 0,
  max_partitions_per_insert_block: 0,
  input_format_skip_unknown_fields: 0,
  // Rows are encoded for the column types that the adapter has learnt: another type is an error, never a conversion.
  input_format_native_allow_types_conversion: 0,
  // One thread takes one block, so that an insert makes one part in each of its partitions.
  max_insert_threads: 1,
  distributed_foreground_insert: 1,
  session_timezone: "UTC",
};

/** Settings of every SELECT: exact numbers as text, UTC, and no merge of partitions that cannot share a key. */
export const READER_SETTINGS: Settings = {
  output_format_json_quote_decimals: 1,
  output_format_json_quote_64bit_integers: 1,
  do_not_merge_across_partitions_select_final: 1,
  session_timezone: "UTC",
  max_execution_time: SELECT_TIME_MAX_SECONDS,
  max_result_rows: SELECT_ROWS_MAX,
};

/** Settings of a SELECT in the background. */
export const BACKGROUND_SETTINGS: Settings = { ...READER_SETTINGS, max_execution_time: BACKGROUND_SECONDS_MAX };

/** HTTP only: no 200 before the statement ended. They are parameters of the request, unknown to `system.settings`. */
export const HTTP_SETTINGS: Settings = { wait_end_of_query: 1, send_progress_in_http_headers: 0 };

/** The settings this engine knows: older and newer servers refuse a statement that carries an unknown name. */
export function knownSettings(settings: Settings, known: ReadonlySet<string>): Settings {
  return Object.fromEntries(Object.entries(settings).filter(([name]) => known.has(name)));
}

/** `SET a = 1, b = 'x'`: names and values are constants of this file. */
export function setStatement(settings: Settings): string {
  const assignments = Object.entries(settings).map(
    ([name, value]) => `${name} = ${typeof value === "number" ? value : `'${value}'`}`,
  );
  return `SET ${assignments.join(", ")}`;
}
