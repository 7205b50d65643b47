import { type AnalyticsStore, type AnalyticsValue, assert } from "@tallyhouse/domain";
import { encodeRows } from "./encode.ts";
import { assertIdentifiers, type Connection, type Lane, type Scanner, storeUnavailable } from "./lane.ts";

/** A connection whose settings stand, and the queue before it. */
export interface Channel<Opened = Connection> {
  readonly connection: Opened;
  readonly lane: Lane;
}

/** What the analytics store sends its statements through. */
export interface Channels {
  readonly writer: Channel;
  readonly reader: Channel;
  /** For long answers, which a short one should not wait for. */
  readonly scanner: Channel<Scanner>;
}

/** The analytics store over channels for writing, reading and scanning, so that none waits for another. */
export function createAnalyticsStore(channels: Channels): AnalyticsStore {
  const { writer, reader } = channels;
  return {
    insert: async (input) => insert(writer, input),
    async select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> {
      if (params !== undefined) assertParams(params);
      try {
        return await reader.lane.run(async () => reader.connection.select<Row>(sql, params));
      } catch (error) {
        throw storeUnavailable("answer a SELECT", error);
      }
    },
    scan: async (sql, params, visit) => scan(channels.scanner, { sql, params, visit }),
    async execute(sql) {
      try {
        await writer.lane.run(async () => writer.connection.command(sql));
      } catch (error) {
        throw storeUnavailable("run a statement", error);
      }
    },
  };
}

/** Tells the visitor's errors, which are the caller's own, from the engine's. */
async function scan(
  { connection, lane }: Channel<Scanner>,
  input: {
    sql: string;
    params: Readonly<Record<string, unknown>>;
    visit: (bytes: Uint8Array) => void | Promise<void>;
  },
): Promise<void> {
  const { sql, params, visit } = input;
  assertParams(params);
  const visitor: { failure?: { error: unknown } } = {};
  try {
    await lane.run(async () =>
      connection.scan(sql, params, async (bytes) => {
        try {
          await visit(bytes);
        } catch (error) {
          visitor.failure = { error };
          throw error;
        }
      }),
    );
  } catch (error) {
    if (visitor.failure !== undefined) throw visitor.failure.error;
    throw storeUnavailable("scan the rows of a SELECT", error);
  }
}

async function insert(
  { connection, lane }: Channel,
  input: { table: string; columns: readonly string[]; rows: readonly (readonly AnalyticsValue[])[] },
): Promise<void> {
  const { table, columns, rows } = input;
  assertIdentifiers([table, ...columns]);
  if (rows.length === 0) return;
  // Encoded before the queue: the caller may reuse its arrays once this call has returned a promise.
  const body = encodeRows(columns.length, rows);
  try {
    await lane.run(async () => connection.insert({ table, columns, body }));
  } catch (error) {
    throw storeUnavailable(`insert ${rows.length} rows into ${table}`, error);
  }
}

/**
 * Text, booleans, finite numbers, bigint, null and arrays of them mean the same to both engines. A Date does not:
 * chDB drops its milliseconds.
 */
function assertParams(params: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(params)) {
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    for (const one of values) {
      const isPlain = one === null || ["string", "boolean", "bigint"].includes(typeof one) || Number.isFinite(one);
      assert(isPlain, `parameter ${name} is neither text, number, bigint, boolean, null nor an array of them`);
    }
  }
}
