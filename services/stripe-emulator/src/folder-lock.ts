import { hash } from "node:crypto";
import { once } from "node:events";
import { realpathSync } from "node:fs";
import { createServer } from "node:net";
import { platform } from "node:os";

/**
 * Makes sure that only one emulator writes to a folder: two would interleave their journals. Resolves to the release.
 *
 * The lock is a listener at a name without a file (Linux' abstract sockets): the kernel frees it when the process dies,
 * so nothing stale is left by `kill -9`, and no process number can be mistaken for another. Other systems have no such
 * names; there nothing is locked.
 * @throws {Error} naming the folder when it is locked.
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  if (platform() !== "linux") return () => Promise.resolve();
  const digest = hash("sha256", realpathSync(folder), "hex").slice(0, 32);
  const server = createServer((connection) => connection.destroy()).unref();
  try {
    server.listen(`\0stripe-emulator-${digest}`);
    await once(server, "listening");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new Error(`another emulator has the data folder ${folder} open`, { cause: error });
  }
  return async () => {
    const closed = once(server, "close");
    server.close();
    await closed;
  };
}
