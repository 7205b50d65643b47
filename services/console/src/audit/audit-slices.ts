/** How large checks are cut: into ranges of customers, which is how `raw_events` and the rollups are sorted, so that none is read twice. */
import type { AnalyticsStore } from "@tallyhouse/domain";
import { literal } from "./audit-json.ts";

/** Customers from one on and below another, by bytes; null is no bound. Of a customer with too many rows, one part of them. */
export interface Slice {
  readonly from: string | null;
  readonly below: string | null;
  readonly part: number;
  readonly parts: number;
}

/** All customers there will ever be, in slices of about as many rows; one slice when there are few. */
export async function readSlices(
  analytics: AnalyticsStore,
  { streams, rowsPerSlice }: { readonly streams: readonly number[]; readonly rowsPerSlice: number },
): Promise<Slice[]> {
  const starts = await analytics.select<Record<"customer" | "rows", string>>(
    `SELECT min(customer) AS customer, toString(sum(rows)) AS rows
     FROM (
       SELECT customer, rows, intDiv(sum(rows) OVER (ORDER BY customer ROWS UNBOUNDED PRECEDING) - rows, ${rowsPerSlice}) AS slice
       FROM (
         SELECT customer, sum(rows) AS rows
         FROM (
           SELECT customer, count() AS rows FROM raw_events WHERE stream IN {streams:Array(UInt16)} GROUP BY customer
           UNION ALL SELECT customer, count() FROM rollup WHERE stream IN {streams:Array(UInt16)} GROUP BY customer)
         GROUP BY customer))
     GROUP BY slice ORDER BY slice`,
    { streams: [...streams] },
  );
  return starts.flatMap(({ customer, rows }, index) => {
    const parts = Math.max(1, Math.round(Number(rows) / rowsPerSlice));
    const range = { from: index === 0 ? null : customer, below: starts[index + 1]?.customer ?? null, parts };
    return Array.from({ length: parts }, (_, part) => ({ ...range, part }));
  });
}

/** Conditions of a slice, each with AND before it. @param spread a whole number that all rows of one key share */
export function sliceSql(slice: Slice, { customer, spread }: { customer: string; spread: string }): string {
  const { from, below, part, parts } = slice;
  return [
    ...(from === null ? [] : [` AND ${customer} >= ${literal(from)}`]),
    ...(below === null ? [] : [` AND ${customer} < ${literal(below)}`]),
    ...(parts === 1 ? [] : [` AND ${spread} % ${parts} = ${part}`]),
  ].join("");
}
