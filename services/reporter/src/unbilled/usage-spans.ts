/** When customers used something, read from the rollups: of any meter, whatever its aggregation. */
import { type AnalyticsStore, type Mode, WINDOW_MS } from "@tallyhouse/domain";
import type { Gap, Stretch, UnbilledStretch } from "./gaps.ts";

/** Customers of one look: their ids and first and last windows are some 100 bytes each. */
const PAGE_MAX = 10_000;
/** Customer ids of one read travel in a URL, which ClickHouse takes up to 1 MiB; quotes and bounds are the rest. */
const CUSTOMER_BYTES_MAX = 262_144;
const WINDOW_SECONDS = WINDOW_MS / 1_000;

/** A customer with changed windows. */
export interface ChangedCustomer extends Stretch {
  /** Whether usage was taken back since: what is listed may be gone. */
  readonly hasVoids: boolean;
}

/**
 * Customers with usage booked at or after `sinceAt`, by id, a page after `after`; `next` is null on the last page.
 *
 * Aggregation in the order of the key stops at the page's end; without it each page would aggregate all that is left.
 */
export async function changedCustomers(
  analytics: AnalyticsStore,
  page: { readonly mode: Mode; readonly sinceAt: number; readonly after: string },
): Promise<{ readonly changed: readonly ChangedCustomer[]; readonly next: string | null }> {
  const rows = await analytics.select<{
    customer: string;
    first: string | number;
    last: string | number;
    voids: number;
  }>(
    `SELECT customer, toUnixTimestamp(min(windowStart)) AS first, toUnixTimestamp(max(windowStart)) AS last,
       toUInt8(max(voided) > 0) AS voids
     FROM rollup WHERE mode = {mode:String} AND bookedStart >= toDateTime({since:UInt32}, 'UTC') AND customer > {after:String}
     GROUP BY customer ORDER BY customer LIMIT {limit:UInt32} SETTINGS optimize_aggregation_in_order = 1`,
    { mode: page.mode, since: Math.floor(page.sinceAt / 1_000), after: page.after, limit: PAGE_MAX },
  );
  const changed = rows.map((row) => ({
    customerId: row.customer,
    firstAt: Number(row.first) * 1_000,
    lastAt: Number(row.last) * 1_000 + WINDOW_MS,
    hasVoids: row.voids === 1,
  }));
  return { changed, next: rows.length < PAGE_MAX ? null : (rows.at(-1)?.customer ?? null) };
}

/**
 * First and last window with usage in each gap; gaps without any are left out. A window belongs to a gap that holds all of it: what a
 * window on the edge of a gap holds, nobody can tell from the rollups.
 * @param sinceAt of usage booked at or after it, taken back or not; null: of all usage that counts now
 */
export async function usageInGaps(
  analytics: AnalyticsStore,
  input: { readonly mode: Mode; readonly gaps: readonly Gap[]; readonly sinceAt: number | null },
): Promise<UnbilledStretch[]> {
  const found: UnbilledStretch[] = [];
  for (const gaps of chunksOf(input.gaps)) found.push(...(await readChunk(analytics, { ...input, gaps })));
  return found;
}

async function readChunk(
  analytics: AnalyticsStore,
  { mode, gaps, sinceAt }: { readonly mode: Mode; readonly gaps: readonly Gap[]; readonly sinceAt: number | null },
): Promise<UnbilledStretch[]> {
  const changed = "SELECT DISTINCT customer, windowStart FROM rollup";
  const counting = "SELECT DISTINCT customer, windowStart FROM usage";
  const rows = await analytics.select<{ customer: string; gap: string | number; first: string; last: string }>(
    `SELECT u.customer AS customer, g.2 AS gap, toString(min(toUnixTimestamp(u.windowStart))) AS first,
       toString(max(toUnixTimestamp(u.windowStart))) AS last
     FROM (${sinceAt === null ? counting : changed}
       WHERE mode = {mode:String} AND customer IN {customers:Array(String)}
         AND ${sinceAt === null ? "counted > voided" : "bookedStart >= toDateTime({since:UInt32}, 'UTC')"}) AS u
     INNER JOIN (SELECT arrayJoin(arrayZip({customers:Array(String)}, {from:Array(UInt32)}, {to:Array(UInt32)})) AS g) AS w
       ON u.customer = tupleElement(w.g, 1)
     WHERE toUnixTimestamp(u.windowStart) >= g.2 AND toUnixTimestamp(u.windowStart) + ${WINDOW_SECONDS} <= g.3
     GROUP BY customer, gap ORDER BY customer, gap`,
    {
      mode,
      since: Math.floor((sinceAt ?? 0) / 1_000),
      customers: gaps.map(({ customerId }) => customerId),
      // The first second that is wholly in the gap, and the last.
      from: gaps.map(({ gapAt }) => Math.ceil(gapAt / 1_000)),
      to: gaps.map(({ endAt }) => Math.floor(endAt / 1_000)),
    },
  );
  const gapAtOf = new Map(gaps.map((gap) => [`${gap.customerId}\n${Math.ceil(gap.gapAt / 1_000)}`, gap.gapAt]));
  return rows.map(({ customer, gap, first, last }) => ({
    customerId: customer,
    gapAt: gapAtOf.get(`${customer}\n${gap}`) ?? Number(gap) * 1_000,
    firstAt: Number(first) * 1_000,
    lastAt: Number(last) * 1_000 + WINDOW_MS,
  }));
}

/** Gaps of so many customers as one URL carries. */
function* chunksOf(gaps: readonly Gap[]): Generator<readonly Gap[]> {
  let chunk: Gap[] = [];
  let bytes = 0;
  for (const gap of gaps) {
    const length = encodeURIComponent(gap.customerId.toWellFormed()).length;
    if (bytes + length > CUSTOMER_BYTES_MAX && chunk.length > 0) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(gap);
    bytes += length;
  }
  if (chunk.length > 0) yield chunk;
}
