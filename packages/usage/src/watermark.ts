import type { AnalyticsStore } from "@tallyhouse/domain";
import type { StreamSize } from "./meter-places.ts";

/**
 * The watermark W: everything that the log received before this instant is in the figures. It is the smallest log clock of all
 * partitions, epoch milliseconds; null until every partition has stored progress once. Log clocks only rise, so it does.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readWatermark(analytics: AnalyticsStore, stream: StreamSize): Promise<number | null> {
  const [row] = await analytics.select<{ watermark: string; partitions: string }>(
    `SELECT toString(toUnixTimestamp64Milli(min(logClock))) AS watermark, toString(uniqExact(logPartition)) AS partitions
     FROM progress FINAL WHERE stream = {stream:UInt16} AND logPartition < {partitionCount:UInt32}
     SETTINGS max_threads = 1`,
    { stream: stream.streamId, partitionCount: stream.partitionCount },
  );
  return row === undefined || Number(row.partitions) < stream.partitionCount ? null : Number(row.watermark);
}
