/** Which usage of the past became known between two cuts: what may change a period that was closed. */
import { type AnalyticsStore, floorTo, type Mode, WINDOW_MS } from "@tallyhouse/domain";
import type { Span } from "./question.ts";
import { cutParameter } from "./rollup-query.ts";

/** Rows of one page: some 2 MB. */
const PAGE_ROWS_MAX = 20_000;

/** Windows of one customer's UTC day with usage that was booked late: from the first one's start to the last one's end. */
export interface LateSpan extends Span {
  readonly customer: string;
}

/** Booked at or after the one cut and before the other. */
interface Between {
  readonly sinceAt: number;
  readonly beforeAt: number;
}

/**
 * Days in which usage (or what a void takes back of it) was booked between two cuts, more than `latenessMs` after its window began: a
 * page of them in order of customer and day, after `after`. `next` is null on the last page.
 *
 * Not FINAL: a superseded row names the same window, and looking once too often finds no difference. The condition on bookedStart
 * reaches the months of the table; within them every row is looked at, three columns of it.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readLateSpans(
  analytics: AnalyticsStore,
  question: Between & { readonly mode: Mode; readonly latenessMs: number; readonly after: LateSpan | null },
): Promise<{ readonly spans: readonly LateSpan[]; readonly next: LateSpan | null }> {
  const { after, beforeAt, latenessMs, mode, sinceAt } = question;
  const rows = await analytics.select<{ customer: string; first: number; last: number }>(
    `SELECT customer, toUnixTimestamp(min(windowStart)) AS first, toUnixTimestamp(max(windowStart)) AS last
     FROM rollup
     WHERE mode = {mode:String} AND bookedStart >= {since:DateTime('UTC')} AND bookedStart < {cut:DateTime('UTC')}
       AND windowStart < bookedStart - toIntervalSecond({lateness:UInt32})
       AND (customer, toDate(windowStart)) > ({afterCustomer:String}, toDate({afterDay:UInt16}))
     GROUP BY customer, toDate(windowStart) AS day ORDER BY customer, day LIMIT {limit:UInt32}`,
    {
      mode,
      since: cutParameter(sinceAt)["cut"],
      ...cutParameter(beforeAt),
      lateness: latenessMs / 1_000,
      afterCustomer: after?.customer ?? "",
      afterDay: after === null ? 0 : Math.floor(after.fromAt / 86_400_000),
      limit: PAGE_ROWS_MAX,
    },
  );
  const spans = rows.map(({ customer, first, last }) => ({
    customer,
    fromAt: first * 1_000,
    toAt: last * 1_000 + WINDOW_MS,
  }));
  return { spans, next: spans.length < PAGE_ROWS_MAX ? null : (spans.at(-1) ?? null) };
}

/**
 * Whether usage of a customer's span was booked between two cuts, for one of the meter versions. Cheap: the primary key finds it.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function hasLateUsage(
  analytics: AnalyticsStore,
  question: Between &
    Span & {
      readonly mode: Mode;
      readonly customer: string;
      readonly meters: readonly { readonly meter: string; readonly version: number }[];
    },
): Promise<boolean> {
  const { beforeAt, customer, fromAt, meters, mode, sinceAt, toAt } = question;
  const rows = await analytics.select(
    `SELECT 1 FROM rollup
     WHERE mode = {mode:String} AND customer = {customer:String} AND meter IN {meters:Array(String)}
       AND concat(meter, '@', toString(meterVersion)) IN {versions:Array(String)}
       AND windowStart >= toDateTime({fromSeconds:UInt32}, 'UTC') AND windowStart < fromUnixTimestamp64Milli({toAt:Int64}, 'UTC')
       AND bookedStart >= {since:DateTime('UTC')} AND bookedStart < {cut:DateTime('UTC')}
     LIMIT 1 SETTINGS max_threads = 1`,
    {
      mode,
      customer,
      meters: meters.map(({ meter }) => meter),
      versions: meters.map(({ meter, version }) => `${meter}@${version}`),
      fromSeconds: floorTo(fromAt, WINDOW_MS) / 1_000,
      toAt,
      since: cutParameter(sinceAt)["cut"],
      ...cutParameter(beforeAt),
    },
  );
  return rows.length > 0;
}
