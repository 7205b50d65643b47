import type { EventLog, LogRecord } from "@tallyhouse/domain";
import type { ResultStore } from "./result-store.ts";
import { RESULT_TABLES, type Row } from "./tables.ts";
import type { TaskSnapshot } from "./task.ts";

/** Repeats an idempotent effect while it fails with a retryable error; see {@link retry} of packages/runtime. */
export type Forever = (effect: () => Promise<void>) => Promise<void>;

/**
 * Makes the prefixes of all snapshots durable: one insert per table, then progress.
 *
 * Progress only after every row and every redirected copy is acknowledged: earlier, a crash in between would make a restart
 * skip what was not stored (breaks G1). The other order costs a replay, whose rows overwrite themselves (G2).
 * @throws the last error when `forever` gives up; any part may be stored, and a restart stores the rest.
 */
export async function flush(
  snapshots: readonly TaskSnapshot[],
  ports: { store: ResultStore; log: EventLog; forever: Forever },
): Promise<void> {
  const { store, log, forever } = ports;
  const effects: Promise<void>[] = [];
  for (const table of RESULT_TABLES) {
    const rows: readonly Row[] = snapshots.flatMap((snapshot) => snapshot.rows[table]);
    if (rows.length > 0) effects.push(forever(() => store.insertRows(table, rows)));
  }
  const redirects: readonly LogRecord[] = snapshots.flatMap((snapshot) => snapshot.redirects);
  if (redirects.length > 0) effects.push(forever(() => log.append(redirects)));
  await Promise.all(effects);
  const progress = snapshots.map((snapshot) => snapshot.progress);
  await forever(() => store.recordProgress(progress));
}
