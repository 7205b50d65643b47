export { migratePostgres } from "./migrate.ts";
export { type OpenedControlStore, openPglite } from "./pglite.ts";
export {
  createServiceTokenDirectory,
  generateServiceToken,
  type ServiceTokenDirectory,
  TOKEN_CACHE_MAX,
  TOKEN_CACHE_MS,
} from "./service-tokens.ts";
