import { type AnalyticsStore, type AnalyticsValue, assert } from "@tallyhouse/domain";
import { encodeRows } from "./encode.ts";
import { assertIdentifiers, type Connection, type Lane, storeUnavailable } from "./lane.ts";

/** A connection whose settings stand, and the queue before it. */
export interface Channel {
  readonly connection: Connection;
  readonly lane: Lane;
}

/** The analytics store over one channel for writing and one for reading, so that neither waits for the other. */
export function createAnalyticsStore(writer: Channel, reader: Channel): AnalyticsStore {
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
    async execute(sql) {
      try {
        await writer.lane.run(async () => writer.connection.command(sql));
      } catch (error) {
        throw storeUnavailable("run a statement", error);
      }
    },
  };
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
