import {
  assert,
  type ControlStore,
  formatQuantity,
  type Quantity,
  type SqlRunner,
  utcMonthOf,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import { quantityOfDecimal } from "@tallyhouse/usage";
import type { AccountKey, Bucket, Feed } from "./account.ts";
import { type DueBucket, dueBuckets, type DueWindow, removeMarks } from "./due-marks.ts";
import { identifierOf } from "./identifier.ts";
import { recordset, sqlInstant } from "./ledger-row.ts";
import { type BucketPlan, planBucket } from "./plan-bucket.ts";
import { bucketKeyOf, type UsageTotals } from "./usage-totals.ts";

/** Buckets of one read and one transaction; with at most 5 rows each that writes at most 5,000 rows. */
const PLAN_BUCKETS_MAX = 1_000;
/** Customer ids of one read travel in a URL, which ClickHouse takes up to 1 MiB. */
const CUSTOMER_BYTES_MAX = 262_144;

/** A feed whose Stripe meter is active. */
export interface MappedFeed extends Feed {
  readonly stripeMeterId: string;
}

/**
 * Plans every due bucket of the feed: per page one read of totals, then one transaction that reads the ledger, writes the
 * missing rows and removes the settled marks.
 *
 * Rows and removed marks commit together: a mark removed first would lose its difference in a crash; a row written first is
 * merely seen as reported by the repeat. Safe to repeat: a bucket whose rows exist has no difference.
 * @returns the number of rows written.
 */
export async function planFeed(input: {
  account: AccountKey;
  feed: MappedFeed;
  totals: UsageTotals;
  control: ControlStore;
  window: DueWindow;
}): Promise<number> {
  const { account, feed, control, window } = input;
  let planned = 0;
  let after: Bucket | null = null;
  for (;;) {
    const page: DueBucket[] = await dueBuckets(control, {
      account,
      feedId: feed.feedId,
      stripeMeterId: feed.stripeMeterId,
      window,
      after,
      limit: PLAN_BUCKETS_MAX,
    });
    const buckets = prefixWithin(page, CUSTOMER_BYTES_MAX);
    after = buckets.at(-1) ?? null;
    if (after === null) return planned;
    // No seal: what this read does not see is booked after W, so its bucket is marked again and the next read adds it.
    const totals = await input.totals.totals(feed, buckets);
    planned += await control.transaction((tx) => planPage(tx, { account, feed, buckets, totals, nowAt: window.nowAt }));
  }
}

function prefixWithin(page: readonly DueBucket[], bytesMax: number): DueBucket[] {
  let bytes = 0;
  let previous = "";
  const prefix: DueBucket[] = [];
  for (const bucket of page) {
    if (bucket.customerId !== previous) bytes += encodeURIComponent(bucket.customerId.toWellFormed()).length;
    previous = bucket.customerId;
    if (bytes > bytesMax && prefix.length > 0) break;
    prefix.push(bucket);
  }
  return prefix;
}

interface PageInput {
  readonly account: AccountKey;
  readonly feed: MappedFeed;
  readonly buckets: readonly DueBucket[];
  readonly totals: ReadonlyMap<string, Quantity>;
  readonly nowAt: number;
}

async function planPage(tx: SqlRunner, page: PageInput): Promise<number> {
  const ledger = await readLedger(tx, page);
  const rows: object[] = [];
  const settled: DueBucket[] = [];
  page.buckets.forEach((bucket, index) => {
    const view = ledger[index];
    assert(view !== undefined, "every bucket of a page was read");
    const period = utcMonthOf(bucket.startAt);
    const plan: BucketPlan = planBucket(
      {
        startAt: bucket.startAt,
        endAt: bucket.endAt,
        periodStartAt: period.startAt,
        periodEndAt: period.endAt,
        total: page.totals.get(bucketKeyOf(bucket)) ?? ZERO_QUANTITY,
        ...view,
      },
      page.nowAt,
    );
    if (plan.kind === "even" || (plan.kind === "rows" && plan.isComplete)) settled.push(bucket);
    if (plan.kind === "rows") rows.push(...plan.pieces.map((piece) => ledgerRow(page, bucket, piece)));
  });
  await insertRows(tx, page, rows);
  await removeMarks(tx, { account: page.account, feedId: page.feed.feedId, buckets: settled });
  return rows.length;
}

interface LedgerView {
  reported: bigint;
  readonly taken: Map<number, number>;
}

/** R and the owned minutes of each bucket, by its position in the page. */
async function readLedger(tx: SqlRunner, page: PageInput): Promise<LedgerView[]> {
  const { account, feed, buckets } = page;
  const spans = recordset(
    buckets.map((bucket, n) => ({
      n,
      stripe_customer_id: bucket.stripeCustomerId,
      starts: sqlInstant(bucket.startAt),
      ends: sqlInstant(bucket.endAt),
    })),
  );
  const from = `json_to_recordset($4::text::json) AS b (n int, stripe_customer_id text, starts timestamptz, ends timestamptz)
     JOIN usage_report AS u ON u.mode = $1 AND u.stripe_account = $2 AND u.stripe_meter_id = $3
       AND u.stripe_customer_id = b.stripe_customer_id`;
  const params = [account.mode, account.stripeAccount, feed.stripeMeterId, spans];
  // R: what live rows account for. It sums by accounts_at, so a bucket that is cut anew, or a re-dated row, still counts where it belongs.
  const sums = await tx.query<{ n: number; reported: string }>(
    `SELECT b.n, sum(u.quantity)::text AS reported FROM ${from}
       AND u.accounts_at >= b.starts AND u.accounts_at < b.ends
     WHERE u.state IN ('planned', 'accepted', 'confirmed') GROUP BY b.n`,
    params,
  );
  const minutes = await tx.query<{ n: number; event_ts: Date; seq: number }>(
    `SELECT b.n, u.event_ts, max(u.seq) AS seq FROM ${from}
       AND u.event_ts >= b.starts AND u.event_ts < b.ends
     GROUP BY b.n, u.event_ts`,
    params,
  );
  const views: LedgerView[] = buckets.map(() => ({ reported: 0n, taken: new Map() }));
  for (const { n, reported } of sums) {
    const view = views[n];
    if (view !== undefined) view.reported = quantityOfDecimal(reported);
  }
  for (const { n, event_ts, seq } of minutes) views[n]?.taken.set(event_ts.getTime(), seq);
  return views;
}

function ledgerRow(
  page: PageInput,
  bucket: DueBucket,
  piece: { eventAt: number; seq: number; quantity: Quantity },
): object {
  const { account, feed } = page;
  const period = utcMonthOf(bucket.startAt);
  return {
    customer_id: bucket.customerId,
    stripe_customer_id: bucket.stripeCustomerId,
    period_start: sqlInstant(period.startAt),
    period_end: sqlInstant(period.endAt),
    bucket_start: sqlInstant(bucket.startAt),
    bucket_end: sqlInstant(bucket.endAt),
    event_ts: sqlInstant(piece.eventAt),
    seq: piece.seq,
    quantity: formatQuantity(piece.quantity),
    identifier: identifierOf({
      mode: account.mode,
      stripeAccount: account.stripeAccount,
      eventName: feed.eventName,
      stripeCustomerId: bucket.stripeCustomerId,
      eventAt: piece.eventAt,
      seq: piece.seq,
    }),
  };
}

async function insertRows(tx: SqlRunner, page: PageInput, rows: readonly object[]): Promise<void> {
  if (rows.length === 0) return;
  const { account, feed } = page;
  await tx.query(
    `INSERT INTO usage_report (mode, stripe_account, feed_id, stripe_meter_id, event_name, formula, kind, state,
       customer_id, stripe_customer_id, period_start, period_end, bucket_start, bucket_end, accounts_at, event_ts, seq,
       quantity, value, identifier)
     SELECT $1, $2, $3, $4, $5, 'sum', 'usage', 'planned',
       r.customer_id, r.stripe_customer_id, r.period_start, r.period_end, r.bucket_start, r.bucket_end, r.event_ts,
       r.event_ts, r.seq, r.quantity, r.quantity, r.identifier
     FROM json_to_recordset($6::text::json) AS r (customer_id text, stripe_customer_id text, period_start timestamptz,
       period_end timestamptz, bucket_start timestamptz, bucket_end timestamptz, event_ts timestamptz, seq int,
       quantity numeric, identifier text)`,
    [account.mode, account.stripeAccount, feed.feedId, feed.stripeMeterId, feed.eventName, recordset(rows)],
  );
}
