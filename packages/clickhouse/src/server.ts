import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { type ClickHouseClient, createClient } from "@clickhouse/client";
import { type Connection, Lane } from "./lane.ts";
import {
  HTTP_SETTINGS,
  knownSettings,
  READER_SETTINGS,
  SELECT_TIME_MAX_SECONDS,
  type Settings,
  WRITER_SETTINGS,
} from "./settings.ts";
import type { Channel } from "./store.ts";

/** Where a ClickHouse server listens. `database` defaults to the user's own. */
export interface ServerOptions {
  readonly url: string;
  readonly username?: string;
  readonly password?: string;
  readonly database?: string;
}

/** Statements in flight per channel: an aggregator has one insert per table, a console some readers. */
const STATEMENTS_IN_FLIGHT_MAX = 8;
/** An insert that is not answered by then is sent again by the caller; the first one may still be stored. */
const INSERT_TIMEOUT_MS = 120_000;
/** The engine ends a SELECT at {@link SELECT_TIME_MAX_SECONDS}; five seconds more for the way. */
const SELECT_TIMEOUT_MS = (SELECT_TIME_MAX_SECONDS + 5) * 1_000;

/**
 * Opens a ClickHouse server over HTTP: one client that writes and one that reads, each with its settings in every
 * request. No session is held, so a balancer may sit between.
 */
export async function openServer(options: ServerOptions): Promise<{ writer: Channel; reader: Channel }> {
  const probe = connect(options, { settings: HTTP_SETTINGS, timeoutMs: SELECT_TIMEOUT_MS });
  try {
    const names = await probe.select<{ name: string }>("SELECT name FROM system.settings", undefined);
    const known = new Set(names.map(({ name }) => name));
    return {
      writer: channel(options, { settings: knownSettings(WRITER_SETTINGS, known), timeoutMs: INSERT_TIMEOUT_MS }),
      reader: channel(options, { settings: knownSettings(READER_SETTINGS, known), timeoutMs: SELECT_TIMEOUT_MS }),
    };
  } finally {
    await probe.close();
  }
}

function channel(options: ServerOptions, { settings, timeoutMs }: { settings: Settings; timeoutMs: number }): Channel {
  return {
    connection: connect(options, { settings: { ...settings, ...HTTP_SETTINGS }, timeoutMs }),
    lane: new Lane(STATEMENTS_IN_FLIGHT_MAX),
  };
}

function connect(
  options: ServerOptions,
  { settings, timeoutMs }: { settings: Settings; timeoutMs: number },
): Connection {
  const client = createClient({
    ...options,
    request_timeout: timeoutMs,
    max_open_connections: STATEMENTS_IN_FLIGHT_MAX,
    clickhouse_settings: settings,
  });
  return {
    async select<Row>(query: string, params: Readonly<Record<string, unknown>> | undefined): Promise<Row[]> {
      const result = await client.query({
        query,
        format: "JSONEachRow",
        ...(params === undefined ? {} : { query_params: { ...params } }),
      });
      return result.json<Row>();
    },
    insert: async ({ table, columns, body }) => insertBody(client, { table, columns, body }),
    async command(query) {
      await client.command({ query });
    },
    close: async () => client.close(),
  };
}

/** The body as it is: `client.insert` would encode rows once more. */
async function insertBody(
  client: ClickHouseClient,
  { table, columns, body }: { table: string; columns: readonly string[]; body: Buffer },
): Promise<void> {
  const { stream } = await client.exec({
    query: `INSERT INTO ${table} (${columns.join(", ")}) FORMAT JSONCompactEachRow`,
    values: Readable.from([body], { objectMode: false }),
  });
  // The socket is free for the next request only after the answer was read.
  await buffer(stream);
}
