import { type ControlStore, floorTo, HOUR_MS, type SqlRunner } from "@tallyhouse/domain";
import type { AccountKey, Bucket, Feed } from "./account.ts";
import { recordset, sqlInstant } from "./ledger-row.ts";
import { PLAN_AGE_MAX_MS } from "./plan-bucket.ts";
import type { UsageTotals } from "./usage-totals.ts";

/** Rows written by one transaction. */
const WRITE_ROWS_MAX = 5_000;

/** A due bucket of a mapped customer. */
export interface DueBucket extends Bucket {
  readonly stripeCustomerId: string;
}

/** Marks that cannot be planned now, for metrics. */
export interface WaitingMarks {
  readonly due: number;
  readonly unmapped: number;
  readonly tooOld: number;
}

/**
 * Marks every bucket with usage booked since the last look, then moves the look's start to the booking window of W.
 *
 * The start moves only after every mark is committed: moved earlier, a crash would forget changed buckets for ever. Usage
 * booked before W is stored, so no row before that window can still appear, unless a meter's earlier usage is still being counted:
 * that is booked at its activation, so the start waits there. Safe to repeat: marks are a set.
 */
export async function markChanged(input: {
  account: AccountKey;
  feeds: readonly Feed[];
  totals: UsageTotals;
  control: ControlStore;
  watermarkAt: number;
  bookingWindowMs: number;
}): Promise<number> {
  const { account, control } = input;
  // Before the changed buckets: a backfill that ends in between has its rows read below.
  const backfillingSince = await input.totals.backfillingSince();
  const [state] = await control.query<{ changed_since: Date }>(
    "SELECT changed_since FROM reporter_state WHERE mode = $1 AND stripe_account = $2",
    [account.mode, account.stripeAccount],
  );
  const sinceAt = state?.changed_since.getTime() ?? 0;
  let marked = 0;
  for (const feed of input.feeds) {
    let after: Bucket | null = null;
    do {
      const page: { buckets: Bucket[]; next: Bucket | null } = await input.totals.changedBuckets({
        feed,
        sinceAt,
        after,
      });
      for (let from = 0; from < page.buckets.length; from += WRITE_ROWS_MAX) {
        const chunk = page.buckets.slice(from, from + WRITE_ROWS_MAX);
        await control.transaction((tx) => insertMarks(tx, { account, feedId: feed.feedId, buckets: chunk }));
        marked += chunk.length;
      }
      after = page.next;
    } while (after !== null);
  }
  const nextSinceAt = floorTo(
    Math.min(input.watermarkAt, backfillingSince ?? input.watermarkAt),
    input.bookingWindowMs,
  );
  if (nextSinceAt <= sinceAt) return marked;
  await control.query(
    `INSERT INTO reporter_state (mode, stripe_account, changed_since) VALUES ($1, $2, $3::timestamptz)
     ON CONFLICT (mode, stripe_account) DO UPDATE SET changed_since = excluded.changed_since`,
    [account.mode, account.stripeAccount, sqlInstant(nextSinceAt)],
  );
  return marked;
}

/** Marks buckets in the caller's transaction. Safe to repeat. */
export async function insertMarks(
  tx: SqlRunner,
  marks: { account: AccountKey; feedId: string; buckets: readonly Bucket[] },
): Promise<void> {
  await tx.query(
    `INSERT INTO report_due (mode, stripe_account, feed_id, customer_id, bucket_start, bucket_end)
     SELECT $1, $2, $3, m.customer_id, m.bucket_start, m.bucket_end
     FROM json_to_recordset($4::text::json) AS m (customer_id text, bucket_start timestamptz, bucket_end timestamptz)
     ON CONFLICT DO NOTHING`,
    [
      marks.account.mode,
      marks.account.stripeAccount,
      marks.feedId,
      recordset(
        marks.buckets.map((bucket) => ({
          customer_id: bucket.customerId,
          bucket_start: sqlInstant(bucket.startAt),
          bucket_end: sqlInstant(bucket.endAt),
        })),
      ),
    ],
  );
}

/** Removes marks in the transaction that writes their rows. */
export async function removeMarks(
  tx: SqlRunner,
  marks: { account: AccountKey; feedId: string; buckets: readonly Bucket[] },
): Promise<void> {
  if (marks.buckets.length === 0) return;
  await tx.query(
    `DELETE FROM report_due AS d
     USING json_to_recordset($4::text::json) AS m (customer_id text, bucket_start timestamptz)
     WHERE d.mode = $1 AND d.stripe_account = $2 AND d.feed_id = $3
       AND d.customer_id = m.customer_id AND d.bucket_start = m.bucket_start`,
    [
      marks.account.mode,
      marks.account.stripeAccount,
      marks.feedId,
      recordset(
        marks.buckets.map((bucket) => ({ customer_id: bucket.customerId, bucket_start: sqlInstant(bucket.startAt) })),
      ),
    ],
  );
}

/** Which buckets may be planned at this watermark: ended `latenessMs` before it, and young enough for Stripe. */
export interface DueWindow {
  readonly watermarkAt: number;
  readonly latenessMs: number;
  readonly nowAt: number;
}

function bounds(window: DueWindow): { endedBy: string; startedAfter: string } {
  return {
    endedBy: sqlInstant(window.watermarkAt - window.latenessMs),
    // A bucket that began up to an hour earlier may still hold minutes young enough.
    startedAfter: sqlInstant(window.nowAt - PLAN_AGE_MAX_MS - HOUR_MS),
  };
}

/**
 * Due buckets of mapped customers whose pair has no blocking row, in order of (customer, start), a page after `after`.
 * A new difference over an unresolved send could bill its quantity twice: such a pair waits.
 *
 * OFFSET 0 keeps each lookup one of its own, by the whole key of its row. Joined instead, a planner without statistics of tables that
 * were just filled reads the map of all customers for every bucket.
 */
export async function dueBuckets(
  control: SqlRunner,
  input: {
    account: AccountKey;
    feedId: string;
    stripeMeterId: string;
    window: DueWindow;
    after: Bucket | null;
    limit: number;
  },
): Promise<DueBucket[]> {
  const { endedBy, startedAfter } = bounds(input.window);
  const rows = await control.query<{
    customer_id: string;
    stripe_customer_id: string;
    bucket_start: Date;
    bucket_end: Date;
  }>(
    `SELECT d.customer_id, c.stripe_customer_id, d.bucket_start, d.bucket_end
     FROM report_due AS d
     CROSS JOIN LATERAL (SELECT m.stripe_customer_id FROM stripe_customer_map AS m
       WHERE m.mode = d.mode AND m.stripe_account = d.stripe_account AND m.customer_id = d.customer_id AND m.state = 'active'
       OFFSET 0) AS c
     WHERE d.mode = $1 AND d.stripe_account = $2 AND d.feed_id = $3
       AND d.bucket_end <= $4::timestamptz AND d.bucket_start > $5::timestamptz
       AND (d.customer_id, d.bucket_start) > ($6, $7::timestamptz)
       AND NOT EXISTS (SELECT 1 FROM usage_report AS u
         WHERE u.mode = d.mode AND u.stripe_account = d.stripe_account AND u.stripe_meter_id = $8
           AND u.stripe_customer_id = c.stripe_customer_id
           AND u.state IN ('sending', 'unknown', 'rejected_sync', 'quarantined') OFFSET 0)
     ORDER BY d.customer_id, d.bucket_start LIMIT $9::int`,
    [
      input.account.mode,
      input.account.stripeAccount,
      input.feedId,
      endedBy,
      startedAfter,
      input.after?.customerId ?? "",
      input.after === null ? "-infinity" : sqlInstant(input.after.startAt),
      input.stripeMeterId,
      input.limit,
    ],
  );
  return rows.map((row) => ({
    customerId: row.customer_id,
    stripeCustomerId: row.stripe_customer_id,
    startAt: row.bucket_start.getTime(),
    endAt: row.bucket_end.getTime(),
  }));
}

/** Customers with a due bucket and no row in stripe_customer_map, at most `limit`. */
export async function unmappedCustomers(
  control: SqlRunner,
  input: { account: AccountKey; window: DueWindow; limit: number },
): Promise<string[]> {
  const { endedBy, startedAfter } = bounds(input.window);
  const rows = await control.query<{ customer_id: string }>(
    `SELECT DISTINCT d.customer_id FROM report_due AS d
     LEFT JOIN stripe_customer_map AS c USING (mode, stripe_account, customer_id)
     WHERE d.mode = $1 AND d.stripe_account = $2 AND c.customer_id IS NULL
       AND d.bucket_end <= $3::timestamptz AND d.bucket_start > $4::timestamptz
     LIMIT $5::int`,
    [input.account.mode, input.account.stripeAccount, endedBy, startedAfter, input.limit],
  );
  return rows.map((row) => row.customer_id);
}

/** Counts what is left after a round: nothing that waits is silent. */
export async function countMarks(
  control: SqlRunner,
  input: { account: AccountKey; window: DueWindow },
): Promise<WaitingMarks> {
  const { endedBy, startedAfter } = bounds(input.window);
  const [row] = await control.query<{ due: string; unmapped: string; too_old: string }>(
    `SELECT count(*) FILTER (WHERE d.bucket_end <= $3::timestamptz AND d.bucket_start > $4::timestamptz)::text AS due,
       count(*) FILTER (WHERE c.state IS DISTINCT FROM 'active')::text AS unmapped,
       count(*) FILTER (WHERE d.bucket_start <= $4::timestamptz)::text AS too_old
     FROM report_due AS d LEFT JOIN stripe_customer_map AS c USING (mode, stripe_account, customer_id)
     WHERE d.mode = $1 AND d.stripe_account = $2`,
    [input.account.mode, input.account.stripeAccount, endedBy, startedAfter],
  );
  return { due: Number(row?.due ?? 0), unmapped: Number(row?.unmapped ?? 0), tooOld: Number(row?.too_old ?? 0) };
}
