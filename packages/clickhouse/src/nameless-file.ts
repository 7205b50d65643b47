import { randomUUID } from "node:crypto";
import { type FileHandle, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";

const PREFIX = "insert-";

/**
 * Puts the bytes into a file of the folder that has no name any more, and hands over the path by which this process
 * alone reaches it. The bytes are gone with the descriptor, so neither an error nor a crash leaves rows behind.
 */
export async function withNamelessFile(
  folder: string,
  bytes: Buffer,
  use: (path: string) => Promise<void>,
): Promise<void> {
  const name = join(folder, `${PREFIX}${randomUUID()}`);
  const file = await open(name, "wx+", 0o600);
  try {
    await rm(name, { force: true });
    await writeAll(file, bytes);
    await use(`/dev/fd/${file.fd}`);
  } finally {
    await file.close();
  }
}

/** Removes the names, of empty files, that a crash between open and removal left. Safe beside open ones: they need no name. */
export async function removeFileNames(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.startsWith(PREFIX));
  await Promise.all(names.map(async (name) => rm(join(folder, name), { force: true })));
}

/** At stated places: where a descriptor is shared rather than opened again, its position must stay at the start. */
async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at, bytes.length - at, at)).bytesWritten;
}
