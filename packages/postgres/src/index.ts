export { migratePostgres } from "./migrate.ts";
export { type ControlStoreOptions, openControlStore } from "./open.ts";
export type { OpenedControlStore } from "./opened-control-store.ts";
export { openPglite } from "./pglite.ts";
export { openPostgres, type PostgresOptions } from "./postgres.ts";
export {
  createServiceTokenDirectory,
  generateServiceToken,
  type ServiceTokenDirectory,
  TOKEN_CACHE_MAX,
  TOKEN_CACHE_MS,
} from "./service-tokens.ts";
