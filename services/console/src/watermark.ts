import type { AnalyticsStore } from "@tallyhouse/domain";

/**
 * The watermark W: everything that the log received before this instant is in the figures. It is the smallest log clock of all
 * partitions, epoch milliseconds; null until every partition has stored progress once.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readWatermark(
  analytics: AnalyticsStore,
  stream: { readonly streamId: number; readonly partitionCount: number },
): Promise<number | null> {
  const [row] = await analytics.select<{ watermark: string; partitions: string }>(
    `SELECT toString(toUnixTimestamp64Milli(min(logClock))) AS watermark, toString(count()) AS partitions
     FROM progress FINAL WHERE stream = {stream:UInt16}`,
    { stream: stream.streamId },
  );
  return row === undefined || Number(row.partitions) < stream.partitionCount ? null : Number(row.watermark);
}
