/** Usage that no plan covers, as the reporter keeps it. */
import { formatInstant, type Mode, type SqlRunner } from "@tallyhouse/domain";

/** One customer with such usage. */
export interface UnbilledCustomer {
  readonly customer: string;
  /** `no_customer`: nobody created it; `no_plan`: it had no plan at those times. */
  readonly reason: "no_customer" | "no_plan";
  /** Start of the first window with such usage, end of the last one; there may be gaps between. */
  readonly firstAt: string;
  readonly lastAt: string;
}

/** By customer, a page after `after`. Customers whose billing is `none` are left out: nobody means to bill them. */
export async function listUnbilled(
  control: SqlRunner,
  query: { readonly mode: Mode; readonly after: string; readonly limit: number },
): Promise<UnbilledCustomer[]> {
  const rows = await control.query<{ customer_id: string; is_known: boolean; first_at: Date; last_at: Date }>(
    `SELECT u.customer_id, bool_or(c.customer_id IS NOT NULL) AS is_known, min(u.first_at) AS first_at, max(u.last_at) AS last_at
     FROM unbilled AS u LEFT JOIN customer AS c USING (mode, customer_id)
     WHERE u.mode = $1 AND u.customer_id > $2 AND c.billing IS DISTINCT FROM 'none'
     GROUP BY u.customer_id ORDER BY u.customer_id LIMIT $3::int`,
    [query.mode, query.after, query.limit],
  );
  return rows.map(({ customer_id: customer, is_known: isKnown, first_at: first, last_at: last }) => ({
    customer,
    reason: isKnown ? "no_plan" : "no_customer",
    firstAt: formatInstant(first.getTime()),
    lastAt: formatInstant(last.getTime()),
  }));
}
