/** Where customers have no plan, and the list of usage there. All in bulk: no statement is of one customer. */
import type { ControlStore, Mode, SqlRunner } from "@tallyhouse/domain";
import { recordset, sqlInstant } from "../ledger-row.ts";

/** A customer's usage as far as it was looked at: from the start of the first window to the end of the last. Epoch milliseconds. */
export interface Stretch {
  readonly customerId: string;
  readonly firstAt: number;
  readonly lastAt: number;
}

/** A time of a customer without a plan, half-open; before the first assignment it begins in 1970. */
export interface Gap {
  readonly customerId: string;
  readonly gapAt: number;
  readonly endAt: number;
}

/** Usage in a gap. */
export interface UnbilledStretch extends Stretch {
  readonly gapAt: number;
}

/** What ends a gap that has no end: the last whole year of ClickHouse's DateTime. */
const FOR_EVER = "2106-01-01T00:00:00Z";
/** Rows written by one transaction. */
const WRITE_ROWS_MAX = 5_000;

/**
 * Gaps that the stretches meet, by customer and start; at most one stretch of each customer. A customer that nobody created is one gap.
 *
 * OFFSET 0 keeps each lookup one of its own, by the index: a planner that does not know how many stretches there are joins them row by row.
 */
export async function gapsOf(
  control: SqlRunner,
  { mode, stretches }: { readonly mode: Mode; readonly stretches: readonly Stretch[] },
): Promise<Gap[]> {
  const rows = await control.query<{ customer_id: string; gap_at: Date; end_at: Date }>(
    `WITH seen AS (
       SELECT * FROM json_to_recordset($2::text::json) AS s (customer_id text, first_at timestamptz, last_at timestamptz)),
     turns AS (
       SELECT s.*, 'epoch'::timestamptz AS turn_at, NULL::text AS plan_key FROM seen AS s
       UNION ALL
       SELECT s.*, a.effective_at, a.plan_key FROM seen AS s
       CROSS JOIN LATERAL (SELECT c.effective_at, c.plan_key FROM customer_assignment AS c
         WHERE c.customer_id = s.customer_id AND c.mode = $1 AND c.superseded_at IS NULL OFFSET 0) AS a),
     spans AS (
       SELECT customer_id, first_at, last_at, plan_key, turn_at AS gap_at,
         lead(turn_at, 1, $3::timestamptz) OVER (PARTITION BY customer_id ORDER BY turn_at) AS end_at FROM turns)
     SELECT customer_id, gap_at, end_at FROM spans
     WHERE plan_key IS NULL AND gap_at < last_at AND end_at > first_at ORDER BY customer_id, gap_at`,
    [
      mode,
      recordset(stretches.map(({ customerId, ...span }) => ({ customer_id: customerId, ...sqlSpan(span) }))),
      FOR_EVER,
    ],
  );
  return rows.map((row) => ({
    customerId: row.customer_id,
    gapAt: row.gap_at.getTime(),
    endAt: row.end_at.getTime(),
  }));
}

/** Adds usage to the list, or widens what is there. Safe to repeat. */
export async function addUnbilled(
  control: ControlStore,
  { mode, found }: { readonly mode: Mode; readonly found: readonly UnbilledStretch[] },
): Promise<void> {
  for (let from = 0; from < found.length; from += WRITE_ROWS_MAX)
    await control.transaction((tx) => insert(tx, { mode, found: found.slice(from, from + WRITE_ROWS_MAX) }));
}

/** Puts what was recounted in the place of all that is listed of these customers, as one. Safe to repeat. */
export async function replaceUnbilled(
  control: ControlStore,
  input: { readonly mode: Mode; readonly customers: readonly string[]; readonly found: readonly UnbilledStretch[] },
): Promise<void> {
  await control.transaction(async (tx) => {
    await tx.query(
      `DELETE FROM unbilled AS u USING json_to_recordset($2::text::json) AS c (customer_id text)
       WHERE u.mode = $1 AND u.customer_id = c.customer_id`,
      [input.mode, recordset(input.customers.map((id) => ({ customer_id: id })))],
    );
    await insert(tx, input);
  });
}

async function insert(
  tx: SqlRunner,
  { mode, found }: { readonly mode: Mode; readonly found: readonly UnbilledStretch[] },
): Promise<void> {
  if (found.length === 0) return;
  const rows = found.map(({ customerId, gapAt, ...span }) => ({
    customer_id: customerId,
    gap_at: sqlInstant(gapAt),
    ...sqlSpan(span),
  }));
  await tx.query(
    `INSERT INTO unbilled (mode, customer_id, gap_at, first_at, last_at)
     SELECT $1, r.customer_id, r.gap_at, r.first_at, r.last_at
     FROM json_to_recordset($2::text::json) AS r (customer_id text, gap_at timestamptz, first_at timestamptz, last_at timestamptz)
     ON CONFLICT (mode, customer_id, gap_at) DO UPDATE SET first_at = least(unbilled.first_at, excluded.first_at),
       last_at = greatest(unbilled.last_at, excluded.last_at)`,
    [mode, recordset(rows)],
  );
}

/**
 * Customers with a listed row that no longer lies in one gap, because an assignment was decided since: by id, a page after `after`.
 * A row is right when its gap still begins where it did, and no assignment begins between that and the row's end.
 */
export async function staleCustomers(
  control: SqlRunner,
  page: { readonly mode: Mode; readonly after: string; readonly limit: number },
): Promise<string[]> {
  const rows = await control.query<{ customer_id: string }>(
    `SELECT DISTINCT u.customer_id FROM unbilled AS u
     CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE a.effective_at > u.gap_at AND a.effective_at < u.last_at) AS inside,
         count(*) FILTER (WHERE a.effective_at = u.gap_at AND a.plan_key IS NULL) AS beginning
       FROM customer_assignment AS a
       WHERE a.customer_id = u.customer_id AND a.mode = u.mode AND a.superseded_at IS NULL OFFSET 0) AS turns
     WHERE u.mode = $1 AND u.customer_id > $2 AND (turns.inside > 0 OR (u.gap_at <> 'epoch' AND turns.beginning = 0))
     ORDER BY u.customer_id LIMIT $3::int`,
    [page.mode, page.after, page.limit],
  );
  return rows.map((row) => row.customer_id);
}

/** Customers on the list by reason, without those whose billing is `none`: as the console lists them. */
export async function countUnbilled(
  control: SqlRunner,
  mode: Mode,
): Promise<Readonly<Record<"no_customer" | "no_plan", number>>> {
  const [row] = await control.query<{ unknown: string; planless: string }>(
    `SELECT count(DISTINCT u.customer_id) FILTER (WHERE c.customer_id IS NULL)::text AS unknown,
       count(DISTINCT u.customer_id) FILTER (WHERE c.customer_id IS NOT NULL)::text AS planless
     FROM unbilled AS u LEFT JOIN customer AS c USING (mode, customer_id)
     WHERE u.mode = $1 AND c.billing IS DISTINCT FROM 'none'`,
    [mode],
  );
  return { no_customer: Number(row?.unknown ?? 0), no_plan: Number(row?.planless ?? 0) };
}

function sqlSpan({ firstAt, lastAt }: Omit<Stretch, "customerId">): { first_at: string; last_at: string } {
  return { first_at: sqlInstant(firstAt), last_at: sqlInstant(lastAt) };
}
