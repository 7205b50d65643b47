export { migrateClickHouse } from "./migrate.ts";
export { type ClickHouseOptions, openClickHouse, type OpenedClickHouse } from "./open.ts";
export { openReadOnlySql, type ReadOnlyAnswer, type ReadOnlySql } from "./read-only.ts";
