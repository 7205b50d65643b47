import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ClickHouseLogLevel, createClient } from "@clickhouse/client";
import { TallyhouseError } from "@tallyhouse/domain";
import { type Connection, Lane, type Scanner, storeUnavailable } from "./lane.ts";
import { assertNoLostWrites, watchLostWrites } from "./lost-writes.ts";
import { removeFileNames, withNamelessFile } from "./nameless-file.ts";
import { BACKGROUND_SETTINGS, knownSettings, READER_SETTINGS, setStatement, WRITER_SETTINGS } from "./settings.ts";
import type { Channels } from "./store.ts";

type PluggedConnection = NonNullable<NonNullable<Parameters<typeof createClient>[0]>["connection"]>;

/** chDB runs the statements of one connection one after another (measured on 3.4.0). */
const STATEMENTS_PER_CONNECTION = 1;

/**
 * Opens ClickHouse in this process on a folder, which is created when it is missing: one connection that writes, one
 * that reads, one that scans and one for the background, because connections run side by side and statements of one do not. One process may hold one
 * folder only; a second open of the same folder in the same process shares it.
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE (halt) when another process holds the folder, STORE_UNAVAILABLE (halt)
 * when the engine cannot open it.
 */
export async function openChdb(path: string): Promise<Channels> {
  await mkdir(path, { recursive: true });
  const writer = await connect(path);
  await removeFileNames(path);
  const reader = await connect(path);
  const names = await writer.select<{ name: string }>("SELECT name FROM system.settings", undefined);
  const known = new Set(names.map(({ name }) => name));
  // Once per connection: a setting sent with a statement would become SET and stay for every later one.
  await writer.command(setStatement(knownSettings(WRITER_SETTINGS, known)));
  await reader.command(setStatement(knownSettings(READER_SETTINGS, known)));
  const background = await connect(path);
  await background.command(setStatement(knownSettings(BACKGROUND_SETTINGS, known)));
  const stopWatching = watchLostWrites(path, await connect(path));
  return {
    writer: {
      connection: {
        ...writer,
        async close() {
          await stopWatching();
          await writer.close();
        },
      },
      lane: new Lane(STATEMENTS_PER_CONNECTION),
    },
    reader: { connection: reader, lane: new Lane(STATEMENTS_PER_CONNECTION) },
    scanner: {
      connection: await connectScanner(path, setStatement(knownSettings(READER_SETTINGS, known))),
      lane: new Lane(STATEMENTS_PER_CONNECTION),
    },
    background: { connection: background, lane: new Lane(STATEMENTS_PER_CONNECTION) },
  };
}

async function connect(path: string): Promise<Connection> {
  // Loaded here and nowhere else: an image that uses a server leaves the 400 MB of chDB out.
  const { createChdbConnection } = await import("chdb/connection");
  const connection = await openFolder(path, () => createChdbConnection({ path }));
  // The types differ in nothing but their copies: each package bundles the interface.
  const client = createClient({
    connection: connection as unknown as PluggedConnection,
    log: { level: ClickHouseLogLevel.OFF },
  });
  const select = async <Row>(query: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> => {
    const result = await client.query({
      query,
      format: "JSONEachRow",
      ...(params === undefined ? {} : { query_params: { ...params } }),
    });
    return result.json<Row>();
  };
  return {
    select,
    async insert({ table, columns, body }) {
      // Through a file, because rawInsert takes text formats only.
      await withNamelessFile(path, body, async (file) => {
        const target = `INSERT INTO ${table} (${columns.join(", ")})`;
        await client.command({ query: `${target} FROM INFILE '${file}' COMPRESSION 'none' FORMAT Native` });
      });
      await assertNoLostWrites(path, select);
    },
    async command(query) {
      await client.command({ query });
      await assertNoLostWrites(path, select);
    },
    close: async () => client.close(),
  };
}

/** A session of chDB's own: the pluggable connection fetches every answer whole. The folder is open already. */
async function connectScanner(path: string, settings: string): Promise<Scanner> {
  const { Session } = await import("chdb");
  const session = new Session(path);
  await session.queryAsync(settings);
  return {
    async scan(sql, params, visit) {
      // Leaving the loop by an error cancels the statement.
      for await (const piece of session.queryStreamBind(sql, params, { format: "RowBinary" })) await visit(piece.raw());
    },
    async close() {
      session.close();
    },
  };
}

/**
 * chDB answers every refusal with "Failed to create connection" and prints the reason to standard error. The engine
 * locks the file `status`, which names the process that wrote it, so a living process there is the reason. Its own id
 * counts too: in two containers both may be process 1, and a folder held by this process would have opened.
 */
async function openFolder<Opened>(path: string, open: () => Opened): Promise<Opened> {
  try {
    return open();
  } catch (error) {
    const holder = await holderOf(path);
    if (holder === undefined) throw storeUnavailable(`open the folder ${path}`, error, "halt");
    throw new TallyhouseError({
      code: "DATA_FOLDER_IN_USE",
      action: "halt",
      message: `the data folder ${path} is in use by process ${holder}: stop that process or choose another folder`,
      cause: error,
    });
  }
}

async function holderOf(path: string): Promise<number | undefined> {
  const status = await readFile(join(path, "status"), "utf8").catch(() => "");
  const text = /^PID: (\d+)$/m.exec(status)?.[1];
  if (text === undefined) return undefined;
  try {
    process.kill(Number(text), 0);
    return Number(text);
  } catch (error) {
    // EPERM: it lives and belongs to another user.
    return (error as NodeJS.ErrnoException).code === "EPERM" ? Number(text) : undefined;
  }
}
