/** The SQL that writes statements and what is to be rated anew. Every statement of it is safe to repeat. */
import { planNameOf, statementDigest, type StatementDocument, statementText } from "@tallyhouse/billing";
import type { Mode, SqlRunner } from "@tallyhouse/domain";

/** An instant as a `timestamptz` parameter. */
export function sqlInstant(at: number): string {
  return new Date(at).toISOString();
}

/**
 * Writes a statement or an adjustment. Its id is a function of its period and number, so a repeat writes nothing.
 * @returns whether it was new.
 */
export async function insertStatement(tx: SqlRunner, document: StatementDocument, sealedAt: number): Promise<boolean> {
  const text = statementText(document);
  const plan = planNameOf(document.plan.plan);
  const rows = await tx.query(
    `INSERT INTO statement (id, mode, customer_id, seq, period_start, period_end, plan_key, plan_version, contract_version,
       currency, cut_at, total, body, digest, sealed_at)
     VALUES ($1, $2, $3, $4::int, $5::timestamptz, $6::timestamptz, $7, $8::int, $9::int, $10, $11::timestamptz,
       $12::text::numeric, $13::text::json, $14, $15::timestamptz)
     ON CONFLICT DO NOTHING RETURNING id`,
    [
      document.id,
      document.mode,
      document.customer,
      document.seq,
      document.period.start,
      document.period.end,
      plan.key,
      plan.version,
      plan.contractVersion,
      document.plan.currency,
      document.cut,
      document.total,
      text,
      statementDigest(text),
      sqlInstant(sealedAt),
    ],
  );
  return rows.length > 0;
}

/**
 * A period that was sealed after the look had gone past its cut, because it came late or its customer could not be read before: what
 * was booked in between is looked for now, in the transaction that writes the statement.
 */
export async function markWhatTheLookPassed(tx: SqlRunner, statementId: string, at: number): Promise<void> {
  await tx.query(
    `INSERT INTO rerate (statement_id, created_at)
     SELECT s.id, $2::timestamptz FROM statement AS s JOIN statement_look AS l USING (mode)
     WHERE s.id = $1 AND l.looked_to > s.cut_at
     ON CONFLICT DO NOTHING`,
    [statementId, sqlInstant(at)],
  );
}

/** Marks the closed periods that the spans meet. Safe to repeat: a period waits once. */
export async function markLatePeriods(
  tx: SqlRunner,
  late: {
    readonly mode: Mode;
    readonly spans: readonly { readonly customer: string; readonly fromAt: number; readonly toAt: number }[];
    readonly at: number;
  },
): Promise<void> {
  const spans = late.spans.map(({ customer, fromAt, toAt }) => ({
    customer_id: customer,
    from_at: sqlInstant(fromAt),
    to_at: sqlInstant(toAt),
  }));
  await tx.query(
    `INSERT INTO rerate (statement_id, created_at)
     SELECT DISTINCT s.id, $3::timestamptz
     FROM json_to_recordset($2::text::json) AS l (customer_id text, from_at timestamptz, to_at timestamptz)
     JOIN statement AS s ON s.mode = $1 AND s.customer_id = l.customer_id AND s.seq = 0
       AND s.period_start < l.to_at AND s.period_end > l.from_at
     ON CONFLICT DO NOTHING`,
    [late.mode, JSON.stringify(spans), sqlInstant(late.at)],
  );
}

/** How far late usage was looked for; null before the first look. */
export async function readLook(control: SqlRunner, mode: Mode): Promise<number | null> {
  const [row] = await control.query<{ looked_to: Date }>("SELECT looked_to FROM statement_look WHERE mode = $1", [
    mode,
  ]);
  return row?.looked_to.getTime() ?? null;
}

/** Moves the look forward, never back. */
export async function moveLook(control: SqlRunner, mode: Mode, lookedToAt: number): Promise<void> {
  await control.query(
    `INSERT INTO statement_look (mode, looked_to) VALUES ($1, $2::timestamptz)
     ON CONFLICT (mode) DO UPDATE SET looked_to = greatest(statement_look.looked_to, excluded.looked_to)`,
    [mode, sqlInstant(lookedToAt)],
  );
}

/** One closed period that waits to be rated anew. */
export interface WaitingRerate {
  readonly id: string;
  readonly mode: Mode;
  readonly customer: string;
  readonly periodStartAt: number;
  /** `pro` and 4, or null for the plan of the period's newest statement. */
  readonly plan: { readonly key: string; readonly version: number } | null;
  readonly meterVersions: Readonly<Record<string, number>>;
  /** null: usage changed. */
  readonly reason: string | null;
  readonly actor: string | null;
}

/** Whether anything waits. */
export async function hasWaitingRerates(control: SqlRunner, mode: Mode): Promise<boolean> {
  const rows = await control.query(
    "SELECT 1 FROM rerate AS r JOIN statement AS s ON s.id = r.statement_id WHERE r.done_at IS NULL AND s.mode = $1 LIMIT 1",
    [mode],
  );
  return rows.length > 0;
}

/** A page of them, the oldest first, after `afterId`. */
export async function waitingRerates(
  control: SqlRunner,
  { afterId, limit, mode }: { readonly mode: Mode; readonly afterId: string; readonly limit: number },
): Promise<WaitingRerate[]> {
  const rows = await control.query<{
    id: string;
    mode: Mode;
    customer_id: string;
    period_start: Date;
    plan_key: string | null;
    plan_version: number | null;
    meter_versions: Readonly<Record<string, number>> | null;
    reason: string | null;
    actor: string | null;
  }>(
    `SELECT r.id, s.mode, s.customer_id, s.period_start, r.plan_key, r.plan_version, r.meter_versions, r.reason, r.actor
     FROM rerate AS r JOIN statement AS s ON s.id = r.statement_id
     WHERE r.done_at IS NULL AND r.id > $1::bigint AND s.mode = $3 ORDER BY r.id LIMIT $2::int`,
    [afterId, limit, mode],
  );
  return rows.map((row) => ({
    id: row.id,
    mode: row.mode,
    customer: row.customer_id,
    periodStartAt: row.period_start.getTime(),
    plan: row.plan_key === null ? null : { key: row.plan_key, version: row.plan_version ?? 0 },
    meterVersions: row.meter_versions ?? {},
    reason: row.reason,
    actor: row.actor,
  }));
}

/** Ends one of them: with an adjustment of the same transaction, with a refusal, or with neither, when nothing differs. */
export async function finishRerate(
  tx: SqlRunner,
  done: {
    readonly id: string;
    readonly at: number;
    readonly adjustmentId?: string;
    readonly refusal?: string;
  },
): Promise<void> {
  await tx.query(
    `UPDATE rerate SET done_at = $2::timestamptz, adjustment_id = $3, refusal = $4 WHERE id = $1::bigint AND done_at IS NULL`,
    [done.id, sqlInstant(done.at), done.adjustmentId ?? null, done.refusal ?? null],
  );
}
