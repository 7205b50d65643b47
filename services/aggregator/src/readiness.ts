/** What `/readyz` of an aggregator says: its own state, its dependencies, and how far it is. */
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import { type Readiness, readinessOf } from "@tallyhouse/runtime";
import type { AggregatorStatus } from "./aggregator.ts";

/** Asks both outside systems each time; the log's answer also tells the lag of the owned partitions. */
export async function readReadiness(
  aggregator: { status(): AggregatorStatus },
  ports: { readonly log: EventLog; readonly analytics: AnalyticsStore },
): Promise<Readiness> {
  const { partitions, state, bufferedBytes, unstoredMs } = aggregator.status();
  let lagRecords = 0;
  const readLags = async (): Promise<void> => {
    const lags = await Promise.all(
      partitions.map(async ({ partition, storedOffset }) => {
        const { earliestOffset, endOffset } = await ports.log.bounds(partition);
        return endOffset - (storedOffset ?? earliestOffset);
      }),
    );
    // One that owns nothing asks all the same: it must be able to take over.
    if (partitions.length === 0) await ports.log.bounds(0);
    lagRecords = lags.reduce((sum, lag) => sum + lag, 0);
  };
  return readinessOf({
    states: { aggregator: state },
    probes: { eventLog: readLags, analyticsStore: () => ports.analytics.select("SELECT 1") },
    figures: () => ({ partitions: partitions.length, lagRecords, bufferedBytes, unstoredMs }),
  });
}
