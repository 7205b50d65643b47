/** Brings the lines of statements to the analysts' table, after the statement is committed. */
import { type LineFigures, planNameOf, type StatementDocument } from "@tallyhouse/billing";
import type { AnalyticsStore, AnalyticsValue, ControlStore } from "@tallyhouse/domain";
import { sqlInstant } from "./statement-writes.ts";

/** Statements of one insert: with 20 lines each, some 5 MB. */
const STATEMENTS_MAX = 500;

const COLUMNS = (
  "mode customer periodStart periodEnd statement seq line kind meter meterVersion plan planVersion currency " +
  "quantity billable amount cutAt sealedAt"
).split(" ");

/**
 * Writes the lines of every statement that has none there yet. The insert first, `lined_at` after its acknowledgement: a crash in
 * between inserts the same rows again, which their key makes one; the other order would leave them out for ever.
 * @returns how many statements.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function writeRatedLines(
  ports: { readonly analytics: AnalyticsStore; readonly control: ControlStore; readonly clock: { now(): number } },
  signal: AbortSignal,
): Promise<number> {
  const { analytics, control, clock } = ports;
  let written = 0;
  while (!signal.aborted) {
    const statements = await control.query<{ id: string; body: string; sealed_at: Date }>(
      `SELECT id, body::text AS body, sealed_at FROM statement WHERE lined_at IS NULL ORDER BY sealed_at, id LIMIT $1::int`,
      [STATEMENTS_MAX],
    );
    if (statements.length === 0) break;
    const rows = statements.flatMap(({ body, sealed_at: sealedAt }) =>
      ratedLines(JSON.parse(body) as StatementDocument, sealedAt.getTime()),
    );
    if (rows.length > 0) await analytics.insert({ table: "rated_line", columns: COLUMNS, rows });
    await control.query(`UPDATE statement SET lined_at = $2::timestamptz WHERE id = ANY ($1::text[])`, [
      statements.map(({ id }) => id),
      sqlInstant(clock.now()),
    ]);
    written += statements.length;
  }
  return written;
}

interface RatedLine {
  readonly key: string;
  readonly figures: LineFigures;
}

/** Rows of one statement: its lines, or of an adjustment the differences, so that sums over a period are its newest figures. */
function ratedLines(document: StatementDocument, sealedAt: number): AnalyticsValue[][] {
  const { customer, difference, id, mode, period, plan, seq } = document;
  const { key: planKey, version } = planNameOf(plan.plan);
  const lines: readonly RatedLine[] =
    difference === null
      ? document.lines.map((line) => ({ key: line.key, figures: line }))
      : difference.lines.map((line) => ({ key: line.key, figures: line.difference }));
  const items = new Map(plan.items.map((item) => [item.key, item]));
  return lines.map(({ key, figures: { quantity, billable, amount } }) => {
    const item = items.get(key);
    const kind = key === "fee" ? "fee" : "usage";
    return [
      mode,
      customer,
      seconds(period.start),
      seconds(period.end),
      id,
      seq,
      key,
      kind,
      item?.meter ?? "",
      item?.meterVersion ?? 0,
      planKey,
      version,
      plan.currency,
      quantity,
      billable,
      amount,
      seconds(document.cut),
      sealedAt,
    ];
  });
}

/** Epoch seconds of an instant of the document: periods begin and cuts lie at whole seconds. */
function seconds(text: string): number {
  return Math.floor(Date.parse(text) / 1_000);
}
