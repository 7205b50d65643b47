import {
  AGGREGATIONS,
  type AnalyticsStore,
  HOUR_MS,
  type Mode,
  type Quantity,
  type StreamIdentity,
} from "@tallyhouse/domain";
import { quantityOfDecimal, readWatermark } from "@tallyhouse/usage";
import { z } from "zod";
import type { Bucket, Feed } from "./account.ts";

/** One page of changed buckets: some 5 MB of rows. */
const CHANGED_PAGE_MAX = 20_000;

/** Which meter versions exist, and which of them this form of the reporter leaves out. */
export interface FeedList {
  readonly reported: readonly Feed[];
  /** `max`, `min` and `latest` need absolute period totals (stripe.md 3.4.6): counted, not reported yet. */
  readonly leftOut: readonly { readonly mode: Mode; readonly meter: string; readonly version: number }[];
}

/** Where exact totals come from. Every read is repeatable and changes nothing. */
export interface UsageTotals {
  /**
   * The watermark: every usage event with bookedAt before it is stored, epoch milliseconds.
   * null until every partition of the stream has a progress row: a partition never heard of may hold anything.
   */
  sealedThrough(): Promise<number | null>;
  /**
   * The earliest activation whose earlier usage is not counted yet (its backfill writes rows booked at the activation), epoch
   * milliseconds; null when there is none. Read after {@link sealedThrough} and before the totals.
   */
  backfillingSince(): Promise<number | null>;
  /** Every activated meter version, as the log's control records say. */
  feeds(): Promise<FeedList>;
  /**
   * Buckets of the feed with usage booked at or after `since`, in order of (customer, start), a page after `after`.
   * A page shorter than {@link CHANGED_PAGE_MAX} is the last: `next` is null.
   */
  changedBuckets(input: {
    feed: Feed;
    sinceAt: number;
    after: Bucket | null;
  }): Promise<{ buckets: Bucket[]; next: Bucket | null }>;
  /** The exact current total of each bucket, one read; keys are {@link bucketKeyOf}. A bucket without usage is absent. */
  totals(feed: Feed, buckets: readonly Bucket[]): Promise<ReadonlyMap<string, Quantity>>;
}

/** A map key; a customer id holds no control character. */
export function bucketKeyOf(bucket: Pick<Bucket, "customerId" | "startAt">): string {
  return `${bucket.customerId}\n${bucket.startAt}`;
}

const ActivationSchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  rule: z.object({ aggregation: z.enum(AGGREGATIONS) }),
});

/** Reads the aggregator's tables through their views (exactly-once.md 3). */
export function createUsageTotals(
  analytics: AnalyticsStore,
  stream: Pick<StreamIdentity, "streamId" | "partitionCount">,
): UsageTotals {
  return {
    sealedThrough: () => readWatermark(analytics, stream),
    backfillingSince: () => backfillingSince(analytics),
    feeds: () => readFeeds(analytics),
    changedBuckets: (input) => changedBuckets(analytics, input),
    totals: (feed, buckets) => totalsOf(analytics, feed, buckets),
  };
}

/** Of every stream: one before this one may have ended with a backfill to do, which its successor does. */
async function backfillingSince(analytics: AnalyticsStore): Promise<number | null> {
  const [row] = await analytics.select<{ pending: string; since: string }>(
    `SELECT toString(count()) AS pending, toString(toUnixTimestamp64Milli(min(bookedAt))) AS since
     FROM control_records
     WHERE kind = 'meter.activate'
       AND (stream, logPartition, JSONExtractString(body, 'mode'), JSONExtractString(body, 'meter'),
         JSONExtractUInt(body, 'version')) NOT IN (
         SELECT stream, logPartition, toString(mode), meter, toUInt64(meterVersion) FROM backfills)`,
  );
  return row === undefined || row.pending === "0" ? null : Number(row.since);
}

async function readFeeds(analytics: AnalyticsStore): Promise<FeedList> {
  const rows = await analytics.select<{ body: string }>(
    "SELECT DISTINCT body FROM control_records WHERE kind = 'meter.activate' ORDER BY body",
  );
  const reported = new Map<string, Feed>();
  const leftOut: { mode: Mode; meter: string; version: number }[] = [];
  for (const { body } of rows) {
    const { mode, meter, version, rule } = ActivationSchema.parse(JSON.parse(body));
    const { aggregation } = rule;
    const feedId = `${meter}_v${version}`;
    if (aggregation === "sum" || aggregation === "count") {
      reported.set(`${mode}/${feedId}`, { feedId, mode, meter, version, aggregation, eventName: `th_${feedId}` });
    } else {
      leftOut.push({ mode, meter, version });
    }
  }
  return { reported: [...reported.values()], leftOut };
}

async function changedBuckets(
  analytics: AnalyticsStore,
  input: { feed: Feed; sinceAt: number; after: Bucket | null },
): Promise<{ buckets: Bucket[]; next: Bucket | null }> {
  const { after, feed } = input;
  // Not FINAL: a superseded row names the same bucket, and marking one too many costs one comparison.
  const rows = await analytics.select<{ customer: string; hour: string | number }>(
    `SELECT customer, toUnixTimestamp(toStartOfHour(windowStart)) AS hour FROM rollup
     WHERE mode = {mode:String} AND meter = {meter:String} AND meterVersion = {version:UInt16}
       AND bookedStart >= toDateTime({since:UInt32}, 'UTC')
       AND (customer, toUnixTimestamp(toStartOfHour(windowStart))) > ({afterCustomer:String}, {afterHour:UInt32})
     GROUP BY customer, hour ORDER BY customer, hour LIMIT {limit:UInt32}`,
    {
      mode: feed.mode,
      meter: feed.meter,
      version: feed.version,
      since: Math.floor(input.sinceAt / 1_000),
      afterCustomer: after?.customerId ?? "",
      afterHour: after === null ? 0 : after.startAt / 1_000,
      limit: CHANGED_PAGE_MAX,
    },
  );
  const buckets = rows.map((row) => hourBucket(row.customer, Number(row.hour) * 1_000));
  return { buckets, next: buckets.length < CHANGED_PAGE_MAX ? null : (buckets.at(-1) ?? null) };
}

async function totalsOf(
  analytics: AnalyticsStore,
  feed: Feed,
  buckets: readonly Bucket[],
): Promise<ReadonlyMap<string, Quantity>> {
  if (buckets.length === 0) return new Map();
  const startsAt = buckets.map((bucket) => bucket.startAt);
  const quantity = feed.aggregation === "count" ? "toInt64(sum(counted)) - toInt64(sum(voided))" : "sum(sumQty)";
  // Whole hours are whole windows, and months begin on whole hours: no edge needs the raw events.
  const rows = await analytics.select<{ customer: string; hour: string | number; quantity: string }>(
    `SELECT customer, toUnixTimestamp(toStartOfHour(windowStart)) AS hour, toString(${quantity}) AS quantity
     FROM usage
     WHERE mode = {mode:String} AND meter = {meter:String} AND meterVersion = {version:UInt16}
       AND customer IN {customers:Array(String)}
       AND windowStart >= toDateTime({from:UInt32}, 'UTC') AND windowStart < toDateTime({to:UInt32}, 'UTC')
     GROUP BY customer, hour`,
    {
      mode: feed.mode,
      meter: feed.meter,
      version: feed.version,
      customers: [...new Set(buckets.map((bucket) => bucket.customerId))],
      from: Math.min(...startsAt) / 1_000,
      to: (Math.max(...startsAt) + HOUR_MS) / 1_000,
    },
  );
  return new Map(
    rows.map((row) => [
      bucketKeyOf({ customerId: row.customer, startAt: Number(row.hour) * 1_000 }),
      quantityOfDecimal(row.quantity),
    ]),
  );
}

/** The hour bucket that begins at `startAt`. */
function hourBucket(customerId: string, startAt: number): Bucket {
  return { customerId, startAt, endAt: startAt + HOUR_MS };
}
