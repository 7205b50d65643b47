import { FORMATS } from "./analyst-names.ts";
import { readSelect } from "./analyst-text.ts";
import { refusalOfTree } from "./analyst-tree.ts";
import { Lane, storeUnavailable } from "./lane.ts";
import { setStatement, type Settings } from "./settings.ts";

/** Bounds of one statement. */
export interface ReadOnlyLimits {
  readonly timeMaxSeconds: number;
  readonly rowsReadMax: number;
  /** The process's services have the rest. */
  readonly memoryBytesMax: number;
  /** An answer is in memory once as a whole. */
  readonly resultRowsMax: number;
  readonly resultBytesMax: number;
}

/** Rows: some seconds of a scan. Answer: 16 connections of the endpoint may hold one each. */
const DEFAULT_LIMITS: ReadOnlyLimits = {
  timeMaxSeconds: 20,
  rowsReadMax: 50_000_000,
  memoryBytesMax: 512 * 1_024 * 1_024,
  resultRowsMax: 1_000_000,
  resultBytesMax: 32 * 1_024 * 1_024,
};
/** Threads of one statement: one, so that the services keep theirs. */
const THREADS_MAX = 1;
/** One statement at a time, as one connection runs them. */
const STATEMENTS_AT_ONCE = 1;
/** Callers waiting for it: each waits at most this many times `timeMaxSeconds`. */
const WAITING_MAX = 8;

/** `readonly` last: nothing can be set after it. */
function analystSettings(limits: ReadOnlyLimits): Settings {
  return {
    session_timezone: "UTC",
    do_not_merge_across_partitions_select_final: 1,
    max_execution_time: limits.timeMaxSeconds,
    timeout_overflow_mode: "throw",
    max_rows_to_read: limits.rowsReadMax,
    read_overflow_mode: "throw",
    max_memory_usage: limits.memoryBytesMax,
    max_result_rows: limits.resultRowsMax,
    max_result_bytes: limits.resultBytesMax,
    result_overflow_mode: "throw",
    max_threads: THREADS_MAX,
    readonly: 1,
  };
}

/** An answer, or why there is none. Codes and names are ClickHouse's own. */
export type ReadOnlyAnswer =
  | {
      readonly kind: "rows";
      readonly body: Uint8Array;
      readonly format: string;
      readonly rowsRead: number;
      readonly bytesRead: number;
    }
  /** Refused before it ran. `reason`: what about it is not allowed. */
  | { readonly kind: "refused"; readonly reason: string }
  /** The engine's answer to a statement that was allowed: a mistake of the caller's, or a limit. */
  | { readonly kind: "failed"; readonly code: number; readonly message: string }
  /** Too many callers wait already. */
  | { readonly kind: "busy" };

/** Statements of people: SELECT over the views of infra/clickhouse, bounded in time, rows and memory. */
export interface ReadOnlySql {
  /** As the engine says it. */
  readonly engineVersion: string;
  /**
   * Runs one statement. `params`: values of `{name:Type}` placeholders, as ClickHouse's HTTP interface takes them. A FORMAT at
   * the end of the statement wins over `defaultFormat`. Safe to repeat: nothing is written.
   */
  run(input: { sql: string; params: ReadonlyMap<string, string>; defaultFormat: string }): Promise<ReadOnlyAnswer>;
  /** Waits for the statement in flight. Safe to repeat. */
  close(): Promise<void>;
}

/**
 * Opens a connection of its own for analysts on a folder that this process has open, migrations applied.
 *
 * `readonly = 1` alone is not enough: under it the engine still reads files (`file()` as a scalar), other tables (`merge`, `IN
 * name`) and `system`, writes `INTO OUTFILE` and runs a second statement (measured on 26.7.2). So a statement must pass two
 * allow-lists first, on its text and on the tree that the engine makes of it, and runs as exactly the text that was judged.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (halt) when the folder cannot be opened.
 */
export async function openReadOnlySql(options: {
  readonly path: string;
  readonly limits?: ReadOnlyLimits;
}): Promise<ReadOnlySql> {
  const { Session } = await import("chdb");
  const session = new Session(options.path);
  const lane = new Lane(STATEMENTS_AT_ONCE);
  const linesOf = async (sql: string): Promise<string[]> => {
    const text = (await session.queryAsync(sql, { format: "TSVRaw" })).text();
    return text.split("\n").filter((line) => line !== "");
  };
  try {
    const existing = new Set(await linesOf("SELECT name FROM system.tables WHERE database = currentDatabase()"));
    const [database = "", engineVersion = ""] = await linesOf("SELECT arrayJoin([currentDatabase(), version()])");
    await session.queryAsync(setStatement(analystSettings(options.limits ?? DEFAULT_LIMITS)));
    let waiting = 0;
    let closing: Promise<void> | undefined;
    return {
      engineVersion,
      async run({ sql: text, params, defaultFormat }) {
        const read = readSelect(text, params);
        if (read.kind === "refused") return read;
        const { sql, withNames, format = defaultFormat } = read;
        if (!FORMATS.has(format)) return { kind: "refused", reason: `the format ${format}` };
        if (waiting > WAITING_MAX) return { kind: "busy" };
        waiting += 1;
        try {
          return await lane.run(async () => {
            const tree = (await session.queryAsync(`EXPLAIN AST ${sql}`, { format: "TSVRaw" })).text();
            const reason = refusalOfTree(tree, { database, withNames, existing });
            if (reason !== null) return { kind: "refused", reason };
            const result = await session.queryAsync(sql, { format });
            const { rowsRead, bytesRead } = result;
            return { kind: "rows", body: result.bytes(), format, rowsRead, bytesRead };
          });
        } catch (error) {
          return failureOf(error);
        } finally {
          waiting -= 1;
        }
      },
      close() {
        closing ??= lane.close().then(() => session.close());
        return closing;
      },
    };
  } catch (error) {
    session.close();
    throw storeUnavailable(`open a connection for analysts on ${options.path}`, error, "halt");
  }
}

/** What the engine says of a statement goes back to who wrote it. Anything else is not the caller's, and is thrown. */
function failureOf(error: unknown): ReadOnlyAnswer {
  const message = error instanceof Error ? error.message : "";
  const code = /^Code: (\d+)\. /.exec(message)?.[1];
  if (code === undefined) throw storeUnavailable("answer an analyst", error);
  return { kind: "failed", code: Number(code), message };
}
