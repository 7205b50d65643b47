import type { ControlStore } from "@tallyhouse/domain";
import { pendingMigrations, readMigrations } from "@tallyhouse/runtime";

const CREATE_JOURNAL = `CREATE TABLE IF NOT EXISTS schema_migrations (
  name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`;

/**
 * Applies every `NNNN-what.sql` of the folder that is not applied yet, in order, and returns their names.
 *
 * A file and its row in the journal are one script, which PostgreSQL runs as one implicit transaction: all of it or
 * nothing. Of two processes that migrate at once the second fails on the journal's key and succeeds when repeated.
 * @throws {TallyhouseError} MIGRATION_MISMATCH (halt), nothing was applied; or PostgreSQL's error of the file that
 * failed, those before it are applied.
 */
export async function migratePostgres(store: ControlStore, folder: string): Promise<string[]> {
  const migrations = await readMigrations(folder);
  await store.execute(CREATE_JOURNAL);
  const applied = await store.query<{ name: string; checksum: string }>(
    "SELECT name, checksum FROM schema_migrations ORDER BY name",
  );
  const pending = pendingMigrations(migrations, applied);
  for (const { name, checksum, script } of pending) {
    // Both are plain by construction: digits, lower-case letters, `-`, `.` and hex.
    const journal = `INSERT INTO schema_migrations (name, checksum) VALUES ('${name}', '${checksum}');`;
    await store.execute(`${script}\n;\n${journal}`);
  }
  return pending.map(({ name }) => name);
}
