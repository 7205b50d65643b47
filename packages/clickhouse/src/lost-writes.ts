import { setInterval as every } from "node:timers";
import { TallyhouseError } from "@tallyhouse/domain";
import type { Connection } from "./lane.ts";

/**
 * chDB 26.7 goes on after a write() that the system refused (disk full, quota, I/O error) as if it had succeeded: the part is
 * committed without those bytes and the insert succeeds. It counts the refusal, though, before the statement ends.
 */
const REFUSED_WRITES = "SELECT value FROM system.events WHERE event = 'WriteBufferFromFileDescriptorWriteFailed'";
/** A running engine keeps the sources of a merge for 480 s (`old_parts_lifetime`): a merge that lost bytes has to be seen well before. */
const WATCH_INTERVAL_MS = 5_000;

/**
 * Called before a statement is acknowledged, it makes sure that the bytes of the statement were taken.
 * @throws {TallyhouseError} STORE_WRITES_LOST (halt): from then on nothing may be acknowledged until the folder is opened anew.
 */
export async function assertNoLostWrites(
  path: string,
  select: (sql: string) => Promise<{ value: string | number }[]>,
): Promise<void> {
  const [row] = await select(REFUSED_WRITES);
  if (row === undefined || Number(row.value) === 0) return;
  throw new TallyhouseError({
    code: "STORE_WRITES_LOST",
    action: "halt",
    message: `the system refused ${row.value} writes of the engine below ${path}, and the engine went on without the bytes (is the disk full?): free space there, then start again`,
  });
}

/**
 * Ends the process, as an uncaught error does, when a merge lost bytes: nobody waits for a merge, and only a new start
 * makes the engine set the broken part aside and use its sources again. An engine that runs on removes them.
 * @returns what stops the watch.
 */
export function watchLostWrites(path: string, connection: Connection): () => Promise<void> {
  let current = Promise.resolve();
  const look = async (): Promise<void> => {
    try {
      await assertNoLostWrites(path, async (sql) => connection.select(sql, undefined));
    } catch (error) {
      if (!(error instanceof TallyhouseError)) return;
      // Out of the promise: it must not be taken for a rejection that somebody may handle.
      setImmediate(() => {
        throw error;
      });
    }
  };
  const timer = every(() => {
    current = current.then(look);
  }, WATCH_INTERVAL_MS).unref();
  return async () => {
    clearInterval(timer);
    await current;
    await connection.close();
  };
}
