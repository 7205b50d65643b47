import type { MemoryLog } from "@tallyhouse/testkit";
import type { Aggregator } from "../aggregator.ts";
import { turnsUntil } from "./scenario.ts";

/** Records per delivered batch: small, so that a short log has many flushes and many places to die. */
const BATCH_RECORDS = 4;

/**
 * Runs an aggregator by hand: one batch of each partition, a flush, the backfills that are due, and again, until everything in the log is stored. No timers: the
 * order of calls is the same in every run.
 * @throws what the aggregator failed with.
 */
export async function driveToEnd(aggregator: Aggregator, log: MemoryLog): Promise<void> {
  await openAll(aggregator, log);
  for (;;) {
    for (let partition = 0; partition < log.partitionCount; partition += 1) await log.deliver(partition, BATCH_RECORDS);
    await aggregator.flush();
    await aggregator.backfill();
    const isDone = aggregator
      .status()
      .partitions.every(({ partition, storedOffset }) => storedOffset === log.entries(partition).length);
    if (isDone) return;
  }
}

/** Subscribes and waits until every partition is open, or one cannot be opened. */
export async function openAll(aggregator: Aggregator, log: MemoryLog): Promise<void> {
  await log.subscribe(aggregator.partitions);
  const isOpen = (): boolean => aggregator.status().partitions.every(({ state }) => state !== "opening");
  let failure: { error: unknown } | null = null;
  aggregator.failed.catch((error: unknown) => {
    failure = { error };
  });
  await turnsUntil(() => isOpen() || failure !== null, "every partition is open");
  if (failure !== null) throw (failure as { error: unknown }).error;
}
