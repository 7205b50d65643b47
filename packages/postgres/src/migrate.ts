import { assert, type ControlStore } from "@tallyhouse/domain";
import { type Migration, pendingMigrations, readMigrations } from "@tallyhouse/runtime";

/** Of this product alone: advisory locks are numbers of a whole database. "tally" in ASCII. */
const MIGRATION_LOCK = 0x74616c6c79;
const LOCK = `SELECT pg_advisory_xact_lock(${MIGRATION_LOCK});`;
const JOURNAL_KEY = "schema_migrations_pkey";
const CREATE_JOURNAL = `CREATE TABLE IF NOT EXISTS schema_migrations (
  name text CONSTRAINT ${JOURNAL_KEY} PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());`;

/**
 * Applies every `NNNN-what.sql` of the folder that is not applied yet, in order, and returns the names that this call
 * applied. Any number of processes may do so at once.
 *
 * The lock, the journal's row and the file are one script, which PostgreSQL runs as one implicit transaction: all of it
 * or nothing. Who waited for the lock finds the row taken before its file has done anything, and goes on with the next.
 * @throws {TallyhouseError} MIGRATION_MISMATCH (halt), nothing more was applied; or PostgreSQL's error of the file that
 * failed, those before it are applied.
 */
export async function migratePostgres(store: ControlStore, folder: string): Promise<string[]> {
  const migrations = await readMigrations(folder);
  // Under the lock: two at once may both see no table, and IF NOT EXISTS then fails for the second.
  await store.execute(`${LOCK}\n${CREATE_JOURNAL}`);
  const applied: string[] = [];
  // Each round ends with one file more in the journal, whoever wrote it; the last one finds nothing to do.
  for (let round = 0; round <= migrations.length; round += 1) {
    const journal = await store.query<{ name: string; checksum: string }>(
      "SELECT name, checksum FROM schema_migrations ORDER BY name",
    );
    const [next] = pendingMigrations(migrations, journal);
    if (next === undefined) return applied;
    if (await apply(store, next)) applied.push(next.name);
  }
  assert(false, "a migration is in the journal and still pending");
}

/** False when another process applied it first. */
async function apply(store: ControlStore, { name, checksum, script }: Migration): Promise<boolean> {
  // Both are plain by construction: digits, lower-case letters, `-`, `.` and hex.
  const journal = `INSERT INTO schema_migrations (name, checksum) VALUES ('${name}', '${checksum}');`;
  try {
    await store.execute(`${LOCK}\n${journal}\n${script}`);
    return true;
  } catch (error) {
    if (isInJournal(error)) return false;
    throw error;
  }
}

function isInJournal(error: unknown): boolean {
  const { code, constraint } = error as { code?: unknown; constraint?: unknown };
  return code === "23505" && constraint === JOURNAL_KEY;
}
