import { type AnalyticsStore, type AnalyticsValue, assert, InvariantError } from "@tallyhouse/domain";
import type { Column } from "./column-types.ts";
import { encodeRows } from "./encode.ts";
import { assertIdentifiers, type Connection, type Lane, type Scanner, storeUnavailable } from "./lane.ts";
import { type KnownTable, TableColumns } from "./table-columns.ts";

/** A connection whose settings stand, and the queue before it. */
export interface Channel<Opened = Connection> {
  readonly connection: Opened;
  readonly lane: Lane;
}

/** What the analytics store sends its statements through. */
export interface Channels {
  readonly writer: Channel;
  readonly reader: Channel;
  /** For SELECTs of minutes. */
  readonly background: Channel;
  /** For long answers, which a short one should not wait for. */
  readonly scanner: Channel<Scanner>;
}

/** The analytics store over channels for writing, reading and scanning, so that none waits for another. */
export function createAnalyticsStore(channels: Channels): AnalyticsStore {
  const { writer, reader } = channels;
  const tables = new TableColumns();
  return {
    insert: async (input) => insert(writer, tables, input),
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

/** What {@link AnalyticsStore.insert} is given. */
interface Insert {
  readonly table: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly AnalyticsValue[])[];
}

async function insert(writer: Channel, tables: TableColumns, input: Insert): Promise<void> {
  const { table, columns, rows } = input;
  assertIdentifiers([table, ...columns]);
  if (rows.length === 0) return;
  // Encoded before the queue: the engine works at the insert before it meanwhile.
  const body = encodeAsKnown(tables, input) ?? encode(await learn(writer, tables, table), input);
  try {
    await writer.lane.run(async () => writer.connection.insert({ table, columns, body }));
  } catch (error) {
    tables.forget(table);
    throw storeUnavailable(`insert ${rows.length} rows into ${table}`, error);
  }
}

/** Undefined when the table is not known, or not as one that takes these rows: it may have changed since. */
function encodeAsKnown(tables: TableColumns, input: Insert): Buffer | undefined {
  const known = tables.get(input.table);
  if (known === undefined || !input.columns.every((name) => known.columns.has(name))) return undefined;
  try {
    return encode(known, input);
  } catch (error) {
    if (error instanceof InvariantError) return undefined;
    throw error;
  }
}

function encode(known: KnownTable, { table, columns, rows }: Insert): Buffer {
  const chosen = columns.map((name): Column => {
    const column = known.columns.get(name);
    if (column !== undefined) return column;
    throw storeUnavailable(`insert into ${table}`, new Error(`there is no column ${name} in table ${table}`));
  });
  const { rowBytes } = known;
  const body = encodeRows({ table, columns: chosen, rows, ...(rowBytes === undefined ? {} : { rowBytes }) });
  known.rowBytes = body.length / rows.length;
  return body;
}

async function learn({ connection, lane }: Channel, tables: TableColumns, table: string): Promise<KnownTable> {
  try {
    return tables.learn(table, await lane.run(async () => connection.select(`DESCRIBE TABLE ${table}`, undefined)));
  } catch (error) {
    throw storeUnavailable(`tell the columns of ${table}`, error);
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
