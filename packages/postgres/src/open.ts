import type { OpenedControlStore } from "./opened-control-store.ts";
import { openPglite } from "./pglite.ts";
import { openPostgres, type PostgresOptions } from "./postgres.ts";

/** `path`: PostgreSQL in this process on that folder. `url`: a server. */
export type ControlStoreOptions = { readonly path: string } | PostgresOptions;

/**
 * Opens the control store.
 * @throws {TallyhouseError} STORE_UNAVAILABLE: retry for a server that is away, halt for a folder, and for a server that
 * refuses us.
 */
export async function openControlStore(options: ControlStoreOptions): Promise<OpenedControlStore> {
  return "path" in options ? openPglite(options) : openPostgres(options);
}
