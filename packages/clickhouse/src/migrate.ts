import type { AnalyticsStore } from "@tallyhouse/domain";
import { type Migration, pendingMigrations, readMigrations } from "@tallyhouse/runtime";

const CREATE_JOURNAL = `CREATE TABLE IF NOT EXISTS schema_migrations (
  name String, checksum String, appliedAt DateTime('UTC') DEFAULT now('UTC'))
ENGINE = ReplacingMergeTree ORDER BY name
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 0`;

/**
 * Applies every `NNNN-what.sql` of the folder that is not applied yet, in order, and returns their names.
 *
 * A file is recorded after its last statement, so a crash in between runs the whole file again: each statement must
 * be repeatable (`CREATE … IF NOT EXISTS`, `CREATE OR REPLACE VIEW`). For the same reason two processes may migrate
 * at once. Recorded first, the crash would leave a database without its tables for ever.
 * @throws {TallyhouseError} MIGRATION_MISMATCH (halt), nothing was applied; STORE_UNAVAILABLE (retry), safe to repeat.
 */
export async function migrateClickHouse(store: AnalyticsStore, folder: string): Promise<string[]> {
  const migrations = await readMigrations(folder);
  await store.execute(CREATE_JOURNAL);
  const applied = await store.select<{ name: string; checksum: string }>(
    "SELECT name, checksum FROM schema_migrations FINAL ORDER BY name",
  );
  const pending = pendingMigrations(migrations, applied);
  for (const migration of pending) await apply(store, migration);
  return pending.map(({ name }) => name);
}

async function apply(store: AnalyticsStore, { name, checksum, script }: Migration): Promise<void> {
  for (const statement of statementsOf(script)) await store.execute(statement);
  await store.insert({ table: "schema_migrations", columns: ["name", "checksum"], rows: [[name, checksum]] });
}

/** Statements end with `;` at the end of a line: ClickHouse runs one at a time. Comment lines alone are none. */
export function statementsOf(script: string): string[] {
  return script
    .split(/;[ \t]*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement.replaceAll(/^\s*--.*$/gm, "").trim() !== "");
}
