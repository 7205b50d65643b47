/** Where the pipeline stands: what is counted, what waits, what Stripe has. */
import type { AnalyticsStore, ControlStore, EventLog } from "@tallyhouse/domain";
import { readWatermark } from "@tallyhouse/usage";

export interface StatusPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly log: EventLog;
  readonly stream: { readonly streamId: number; readonly partitionCount: number };
}

/** Figures of the whole pipeline, both modes together. Counts are of usage events, buckets or meter events as named. */
export interface PipelineStatus {
  /** Usage events counted since the stream began. */
  readonly counted: number;
  /** Records in the log that the aggregator has not stored yet. */
  readonly waiting: number;
  /** Buckets whose total may differ from what was reported, and meter events not yet accepted by Stripe. */
  readonly due: number;
  /** Meter events that Stripe accepted. */
  readonly atStripe: number;
  /** Meter events that need a look: refused or set aside. */
  readonly stuck: number;
  /** Control records that are not in the log yet. */
  readonly outbox: number;
  /** Epoch milliseconds; null until every partition reported once. */
  readonly watermarkAt: number | null;
}

/**
 * Reads every figure once; they are of slightly different instants.
 * @throws {TallyhouseError} STORE_UNAVAILABLE, LOG_UNAVAILABLE (retry).
 */
export async function readStatus(ports: StatusPorts): Promise<PipelineStatus> {
  const { analytics, control, log, stream } = ports;
  const watermarkAt = await readWatermark(analytics, stream);
  const progress = await analytics.select<{ partition: string; next: string; counted: string }>(
    `SELECT toString(logPartition) AS partition, toString(nextOffset) AS next, toString(counted) AS counted
     FROM progress FINAL WHERE stream = {stream:UInt16}`,
    { stream: stream.streamId },
  );
  const next = new Map(progress.map((row) => [Number(row.partition), Number(row.next)]));
  let waiting = 0;
  for (let partition = 0; partition < stream.partitionCount; partition += 1) {
    const { earliestOffset, endOffset } = await log.bounds(partition);
    // Progress was read before the bounds, so it is never ahead of them.
    waiting += endOffset - (next.get(partition) ?? earliestOffset);
  }
  const [row] = await control.query<Record<"buckets" | "unsent" | "sent" | "stuck" | "outbox", string>>(
    `SELECT (SELECT count(*) FROM report_due) AS buckets,
       count(*) FILTER (WHERE state IN ('planned', 'sending', 'unknown')) AS unsent,
       count(*) FILTER (WHERE state IN ('accepted', 'confirmed')) AS sent,
       count(*) FILTER (WHERE state IN ('rejected_sync', 'rejected_async', 'quarantined')) AS stuck,
       (SELECT count(*) FROM control_outbox WHERE appended_at IS NULL AND stream = $1) AS outbox
     FROM usage_report`,
    [stream.streamId],
  );
  return {
    counted: progress.reduce((sum, { counted }) => sum + Number(counted), 0),
    waiting,
    due: Number(row?.buckets ?? 0) + Number(row?.unsent ?? 0),
    atStripe: Number(row?.sent ?? 0),
    stuck: Number(row?.stuck ?? 0),
    outbox: Number(row?.outbox ?? 0),
    watermarkAt,
  };
}

/**
 * Stored records by their fate (`counted`, `duplicate`, `conflict`, …), copies of a replay once. Reads the whole table: for the
 * admin API, not for a page that loads every few seconds.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readFates(analytics: AnalyticsStore): Promise<Readonly<Record<string, number>>> {
  const rows = await analytics.select<{ status: string; records: string }>(
    "SELECT toString(status) AS status, toString(count()) AS records FROM raw_events FINAL GROUP BY status ORDER BY status",
  );
  return Object.fromEntries(rows.map(({ status, records }) => [status, Number(records)]));
}
