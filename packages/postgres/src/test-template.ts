/** PostgreSQL in the process with every migration applied, at a third of the CPU: for tests alone. */
import { createHash } from "node:crypto";
import { access, cp, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readMigrations } from "@tallyhouse/runtime";
import { migratePostgres } from "./migrate.ts";
import type { OpenedControlStore } from "./opened-control-store.ts";
import { openPglite } from "./pglite.ts";

/**
 * Opens a new folder with the migrations of `migrationsFolder`, copied from one that was made once for these very files and stays in the
 * system's folder for temporary files.
 * @throws as {@link openPglite} and {@link migratePostgres} do.
 */
export async function openMigratedPglite(path: string, migrationsFolder: string): Promise<OpenedControlStore> {
  await cp(await templateOf(migrationsFolder), path, { recursive: true });
  const opened = await openPglite({ path });
  // Does nothing where the template is what it should be, and says so where it is not.
  await migratePostgres(opened.store, migrationsFolder);
  return opened;
}

async function templateOf(migrationsFolder: string): Promise<string> {
  const hash = createHash("sha256").update(import.meta.resolve("@electric-sql/pglite"));
  for (const { name, checksum } of await readMigrations(migrationsFolder)) hash.update(`${name} ${checksum}\n`);
  const template = join(tmpdir(), `tallyhouse-migrated-${hash.digest("hex").slice(0, 16)}`);
  if (await isThere(template)) return template;
  const making = await mkdtemp(`${template}-`);
  const opened = await openPglite({ path: join(making, "postgres") });
  await migratePostgres(opened.store, migrationsFolder);
  await opened.close();
  try {
    // Whole or not at all: a killed test leaves nothing that looks like a template.
    await rename(join(making, "postgres"), template);
  } catch (error) {
    // Another process was first.
    if (!(await isThere(template))) throw error;
  }
  await rm(making, { recursive: true, force: true });
  return template;
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
