export { migrateClickHouse } from "./migrate.ts";
export { type ClickHouseOptions, openClickHouse, type OpenedClickHouse } from "./open.ts";
