import { join } from "node:path";
import { TallyhouseError } from "@tallyhouse/domain";
import type { FileSystem } from "./file-system.ts";

const META_NAME = "log.json";
const META_BYTES_MAX = 65_536;
const FORMAT = 1;

/** What a log's folder was made for. */
export interface LogMeta {
  readonly name: string;
  readonly partitionCount: number;
}

/**
 * Makes the folder with its description, or checks the one that is there. Safe to repeat. The description is written
 * whole under another name and renamed, so a kill in between leaves a folder that is made again.
 * @throws {TallyhouseError} LOG_MISCONFIGURED (halt): another partition count would send new copies of an identity to
 *   partitions that do not know the old ones.
 */
export async function ensureLogMeta(fileSystem: FileSystem, folder: string, wanted: LogMeta): Promise<void> {
  await fileSystem.makeFolder(folder);
  const path = join(folder, META_NAME);
  if ((await fileSystem.list(folder)).includes(META_NAME)) {
    check(path, await readText(fileSystem, path), wanted);
    return;
  }
  const text = `${JSON.stringify({ format: FORMAT, name: wanted.name, partitionCount: wanted.partitionCount })}\n`;
  const temporary = await fileSystem.create(`${path}.tmp`);
  await temporary.write(Buffer.from(text), 0);
  await temporary.sync();
  await temporary.close();
  await fileSystem.rename(`${path}.tmp`, path);
  await fileSystem.syncFolder(folder);
}

async function readText(fileSystem: FileSystem, path: string): Promise<string> {
  const file = await fileSystem.open(path);
  try {
    const bytes = Buffer.alloc(META_BYTES_MAX);
    return bytes.toString("utf8", 0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}

function check(path: string, text: string, wanted: LogMeta): void {
  let found: Partial<LogMeta> & { format?: unknown };
  try {
    found = JSON.parse(text) as typeof found;
  } catch (cause) {
    throw new TallyhouseError({ code: "LOG_CORRUPT", action: "halt", message: `${path} is not JSON`, cause });
  }
  if (found.format === FORMAT && found.name === wanted.name && found.partitionCount === wanted.partitionCount) return;
  throw new TallyhouseError({
    code: "LOG_MISCONFIGURED",
    action: "halt",
    message:
      `${path} says format ${String(found.format)}, name ${String(found.name)}, ${String(found.partitionCount)} ` +
      `partitions; wanted are format ${FORMAT}, name ${wanted.name}, ${wanted.partitionCount} partitions. ` +
      "The partition count is fixed for the life of a log: use the old setting or another folder.",
  });
}
