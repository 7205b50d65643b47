/** One process at a time on a data folder, whichever stores are inside it and whichever are servers. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { TallyhouseError } from "@tallyhouse/domain";

/**
 * Locks the folder and returns how to let it go. The lock is SQLite's on an empty file: the kernel's, so that a kill
 * frees it, and never stale. Node has no lock of its own, and a file with a process id is no lock: ids come again.
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE (halt) when another process, or this one, holds it.
 */
export function lockFolder(folder: string): () => Promise<void> {
  const holderPath = join(folder, "lock.pid");
  // 0: do not wait for the holder.
  const database = new DatabaseSync(join(folder, "lock"), { timeout: 0 });
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    const holder = existsSync(holderPath) ? readFileSync(holderPath, "utf8") : "that has just started";
    throw new TallyhouseError({
      code: "DATA_FOLDER_IN_USE",
      action: "halt",
      message: `the data folder ${folder} is in use by process ${holder}: stop that process or choose another folder`,
      cause: error,
    });
  }
  // Only for that sentence.
  writeFileSync(holderPath, String(process.pid));
  return async () => database.close();
}
