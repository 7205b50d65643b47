import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { TallyhouseError } from "@tallyhouse/domain";

const MIGRATION_FILE = /^\d{4}-[a-z0-9-]+\.sql$/;

/** One migration file as it lies in the folder. */
export interface Migration {
  /** File name, `NNNN-what.sql`; the order of application. */
  readonly name: string;
  /** SHA-256 of the file's bytes, hex. */
  readonly checksum: string;
  readonly script: string;
}

/**
 * Reads every `NNNN-what.sql` of a folder, in the order of their names.
 * @throws {Error} of the file system, when the folder cannot be read.
 */
export async function readMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => MIGRATION_FILE.test(name)).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const bytes = await readFile(join(folder, name));
      return { name, checksum: createHash("sha256").update(bytes).digest("hex"), script: bytes.toString("utf8") };
    }),
  );
}

/**
 * The migrations still to apply, in order. Pure.
 *
 * Refuses what would leave two databases of one version with different tables: a file that changed after it was
 * applied, one that was applied and is gone (an older build on newer data), one that sorts before an applied one.
 * @throws {TallyhouseError} MIGRATION_MISMATCH (halt); nothing was applied.
 */
export function pendingMigrations(
  migrations: readonly Migration[],
  applied: readonly Pick<Migration, "name" | "checksum">[],
): Migration[] {
  const files = new Map(migrations.map((migration) => [migration.name, migration]));
  for (const { name, checksum } of applied) {
    const file = files.get(name);
    if (file === undefined)
      throw mismatch(`${name} was applied to this database but is not in this build: run the newer build`);
    if (file.checksum !== checksum)
      throw mismatch(`${name} was changed after it was applied: restore the file and write a new migration`);
  }
  const done = new Set(applied.map(({ name }) => name));
  const pending = migrations.filter(({ name }) => !done.has(name));
  const newest = [...done].toSorted().at(-1) ?? "";
  const late = pending.find(({ name }) => name < newest);
  if (late !== undefined)
    throw mismatch(`${late.name} sorts before ${newest}, which is applied: give it the next number`);
  return pending;
}

function mismatch(message: string): TallyhouseError {
  return new TallyhouseError({ code: "MIGRATION_MISMATCH", action: "halt", message });
}
