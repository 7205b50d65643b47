import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from "@clickhouse/client";
import { type Connection, Lane, type Scanner } from "./lane.ts";
import {
  BACKGROUND_SECONDS_MAX,
  BACKGROUND_SETTINGS,
  HTTP_SETTINGS,
  knownSettings,
  READER_SETTINGS,
  SELECT_TIME_MAX_SECONDS,
  type Settings,
  WRITER_SETTINGS,
} from "./settings.ts";
import type { Channel, Channels } from "./store.ts";

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
 * Opens a ClickHouse server over HTTP: clients that write, read and scan, each with its settings in every request. No
 * session is held, so a balancer may sit between.
 */
export async function openServer(options: ServerOptions): Promise<Channels> {
  const probe = connect(options, { settings: HTTP_SETTINGS, timeoutMs: SELECT_TIMEOUT_MS });
  try {
    const names = await probe.select<{ name: string }>("SELECT name FROM system.settings", undefined);
    const known = new Set(names.map(({ name }) => name));
    const reading = { settings: knownSettings(READER_SETTINGS, known), timeoutMs: SELECT_TIMEOUT_MS };
    return {
      writer: channel(options, { settings: knownSettings(WRITER_SETTINGS, known), timeoutMs: INSERT_TIMEOUT_MS }),
      reader: channel(options, reading),
      scanner: channel(options, reading),
      background: channel(options, {
        settings: knownSettings(BACKGROUND_SETTINGS, known),
        timeoutMs: (BACKGROUND_SECONDS_MAX + 5) * 1_000,
      }),
    };
  } finally {
    await probe.close();
  }
}

function channel(
  options: ServerOptions,
  { settings, timeoutMs }: { settings: Settings; timeoutMs: number },
): Channel<Connection & Scanner> {
  return {
    connection: connect(options, { settings: { ...settings, ...HTTP_SETTINGS }, timeoutMs }),
    lane: new Lane(STATEMENTS_IN_FLIGHT_MAX),
  };
}

function connect(
  options: ServerOptions,
  { settings, timeoutMs }: { settings: Settings; timeoutMs: number },
): Connection & Scanner {
  const client = createClient({
    ...options,
    request_timeout: timeoutMs,
    max_open_connections: STATEMENTS_IN_FLIGHT_MAX,
    clickhouse_settings: settings,
    // Long parameters go into the body: a server takes 1 MiB of URL, a balancer often 8 KiB.
    use_multipart_params_auto: true,
    // Its errors reach the caller; the client would print them too, with the statement.
    log: { level: ClickHouseLogLevel.OFF },
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
    scan: async (query, params, visit) => {
      // `exec`: client.query knows no binary format. The server answers when the statement has ended (HTTP_SETTINGS), so no
      // error can hide among the rows, and a connection that breaks before the answer's last chunk is an error of the stream.
      const { stream } = await client.exec({ query: `${query}\nFORMAT RowBinary`, query_params: { ...params } });
      for await (const bytes of stream as AsyncIterable<Buffer>) await visit(bytes);
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
    query: `INSERT INTO ${table} (${columns.join(", ")}) FORMAT Native`,
    values: Readable.from([body], { objectMode: false }),
  });
  // The socket is free for the next request only after the answer was read.
  await buffer(stream);
}
