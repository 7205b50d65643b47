import type { AnalyticsStore } from "@tallyhouse/domain";
import { openChdb } from "./chdb.ts";
import { storeUnavailable } from "./lane.ts";
import { openServer, type ServerOptions } from "./server.ts";
import { type Channel, type Channels, createAnalyticsStore } from "./store.ts";

/** `path`: ClickHouse in this process on that folder. `url`: a server. */
export type ClickHouseOptions = { readonly path: string } | ServerOptions;

/** An open analytics store. */
export interface OpenedClickHouse {
  readonly store: AnalyticsStore;
  /** As the engine says it, for example `26.7.2.1`. */
  readonly engineVersion: string;
  /** Waits for the statements in flight, then lets the folder or the sockets go. The store is unusable afterwards. */
  close(): Promise<void>;
}

/**
 * Opens the analytics store. Settings are read from the engine and set once (see settings.ts).
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE (halt), STORE_UNAVAILABLE (retry for a server, halt for a folder).
 */
export async function openClickHouse(options: ClickHouseOptions): Promise<OpenedClickHouse> {
  const channels = "path" in options ? await openChdb(options.path) : await reachServer(options);
  const store = createAnalyticsStore(channels);
  const [row] = await store.select<{ version: string }>("SELECT version() AS version");
  return {
    store,
    engineVersion: row?.version ?? "",
    async close() {
      await Promise.all([channels.writer, channels.reader, channels.scanner].map(closeChannel));
    },
  };
}

async function reachServer(options: ServerOptions): Promise<Channels> {
  try {
    return await openServer(options);
  } catch (error) {
    throw storeUnavailable(`be reached at ${new URL(options.url).host}`, error);
  }
}

async function closeChannel({ connection, lane }: Channel<{ close(): Promise<void> }>): Promise<void> {
  await lane.close();
  await connection.close();
}
