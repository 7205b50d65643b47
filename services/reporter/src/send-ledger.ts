/** The ledger while sending: what may be sent, what is being sent, what came of it. */
import { assert, formatQuantity, type SqlRunner } from "@tallyhouse/domain";
import type { AccountKey, Bucket } from "./account.ts";
import { insertMarks } from "./due-marks.ts";
import { recordset, type SendableRow, sqlInstant } from "./ledger-row.ts";
import type { Answer, Transition } from "./outcome.ts";
import { quantityOfDecimal } from "@tallyhouse/usage";

/** Position in the order of sending. */
export interface SendCursor {
  readonly eventAt: number;
  readonly id: string;
}

/**
 * Rows found in `sending` when no call is in flight: the process died, or could not write what came back. They may have been
 * counted: `unknown`, with the doubt that was committed before the call. Safe to repeat.
 */
export async function recoverSending(control: SqlRunner, account: AccountKey): Promise<number> {
  const rows = await control.query<{ id: string }>(
    `UPDATE usage_report SET state = 'unknown',
       verify_step = CASE verify_step WHEN 'resend' THEN 'check' ELSE verify_step END
     WHERE mode = $1 AND stripe_account = $2 AND state = 'sending' RETURNING id`,
    [account.mode, account.stripeAccount],
  );
  return rows.length;
}

/**
 * Rows that may be sent, in the order of their minutes, a page after the cursor. Pairs with a row that an operator must look
 * at, or that is being verified, are left out: their order would break.
 *
 * `id + 0` is the expression of the index in this order, which no statement that names rows by id can mistake for its own. OFFSET 0
 * keeps the lookup one by the pair's whole key (see dueBuckets).
 */
export async function sendableRows(
  control: SqlRunner,
  input: { account: AccountKey; after: SendCursor | null; limit: number },
): Promise<SendableRow[]> {
  const { account, after } = input;
  const rows = await control.query<{
    id: string | number;
    stripe_customer_id: string;
    stripe_meter_id: string;
    event_name: string;
    event_ts: Date;
    seq: number;
    value: string;
    identifier: string;
    idem_epoch: number;
    state: SendableRow["state"];
    has_doubt: boolean;
    was_refused: boolean;
    verify_step: SendableRow["verifyStep"];
    first_attempt_at: Date | null;
  }>(
    `SELECT u.id::text AS id, u.stripe_customer_id, u.stripe_meter_id, u.event_name, u.event_ts, u.seq, u.value::text AS value,
       u.identifier, u.idem_epoch, u.state, u.doubt_since IS NOT NULL AS has_doubt, u.refused_at IS NOT NULL AS was_refused,
       u.verify_step, u.first_attempt_at
     FROM usage_report AS u
     WHERE u.mode = $1 AND u.stripe_account = $2 AND u.state IN ('planned', 'unknown')
       AND u.verify_step IN ('none', 'resend') AND (u.event_ts, u.id + 0) > ($3::timestamptz, $4::bigint)
       AND NOT EXISTS (SELECT 1 FROM usage_report AS b
         WHERE b.mode = u.mode AND b.stripe_account = u.stripe_account AND b.stripe_meter_id = u.stripe_meter_id
           AND b.stripe_customer_id = u.stripe_customer_id
           AND b.state IN ('sending', 'unknown', 'rejected_sync', 'quarantined')
           AND (b.state IN ('rejected_sync', 'quarantined') OR b.verify_step IN ('check', 'recheck')) OFFSET 0)
     ORDER BY u.event_ts, u.id + 0 LIMIT $5::int`,
    [
      account.mode,
      account.stripeAccount,
      after === null ? "-infinity" : sqlInstant(after.eventAt),
      after?.id ?? "0",
      input.limit,
    ],
  );
  return rows.map((row) => ({
    id: String(row.id),
    stripeCustomerId: row.stripe_customer_id,
    stripeMeterId: row.stripe_meter_id,
    eventName: row.event_name,
    eventAt: row.event_ts.getTime(),
    seq: row.seq,
    value: formatQuantity(quantityOfDecimal(row.value)),
    identifier: row.identifier,
    idemEpoch: row.idem_epoch,
    state: row.state,
    hasDoubt: row.has_doubt,
    wasRefused: row.was_refused,
    verifyStep: row.verify_step,
    firstAttemptAt: row.first_attempt_at?.getTime() ?? null,
  }));
}

/** What one call came to. */
export interface SendResult {
  readonly row: SendableRow;
  readonly answer: Answer;
  readonly transition: Transition;
}

/**
 * Writes what came back and marks the next rows as being sent, in the caller's transaction.
 *
 * Rows are named by an array of ids and their state by a joined list: with the list alone an unanalysed table is read whole
 * each time, with the state as a constant the whole index of unfinished rows is.
 *
 * `sending` and the doubt are committed before the call: a crash in or after the call then finds the row in doubt and repeats
 * it under the same identifier. Committed after the call, the crash would plan its quantity a second time.
 */
export async function settleAndMark(
  tx: SqlRunner,
  input: { results: readonly SendResult[]; next: readonly SendableRow[]; nowAt: number },
): Promise<void> {
  const now = sqlInstant(input.nowAt);
  if (input.results.length > 0) {
    const written = await tx.query<{ id: string }>(
      `UPDATE usage_report AS u SET state = r.state, idem_epoch = u.idem_epoch + r.epochs, verify_step = r.verify_step,
         verify_absent_at = NULL,
         doubt_since = CASE WHEN r.keeps_doubt THEN u.doubt_since END,
         refused_at = CASE WHEN r.is_refusal THEN coalesce(u.refused_at, $2::timestamptz) ELSE u.refused_at END,
         accepted_at = CASE WHEN r.state = 'accepted' THEN $2::timestamptz END,
         request_id = coalesce(r.request_id, u.request_id), error_code = r.error_code, error_message = r.error_message
       FROM json_to_recordset($1::text::json) AS r (id bigint, was text, state text, epochs int, verify_step text,
         keeps_doubt boolean, is_refusal boolean, request_id text, error_code text, error_message text)
       WHERE u.id = ANY ($3::bigint[]) AND u.id = r.id AND u.state = r.was RETURNING u.id`,
      [recordset(input.results.map(resultRow)), now, input.results.map(({ row }) => row.id)],
    );
    assert(written.length === input.results.length, "every row with an answer was being sent");
  }
  if (input.next.length > 0) {
    const marked = await tx.query<{ id: string }>(
      `UPDATE usage_report AS u SET state = 'sending', doubt_since = coalesce(u.doubt_since, $2::timestamptz),
         first_attempt_at = coalesce(u.first_attempt_at, $2::timestamptz), last_attempt_at = $2::timestamptz
       FROM json_to_recordset($1::text::json) AS r (id bigint, was text)
       WHERE u.id = ANY ($3::bigint[]) AND u.id = r.id AND u.state = r.was RETURNING u.id`,
      [recordset(input.next.map((row) => ({ id: row.id, was: row.state }))), now, input.next.map((row) => row.id)],
    );
    assert(marked.length === input.next.length, "every row to send was planned or unknown");
  }
}

function resultRow({ row, answer, transition }: SendResult): object {
  return {
    id: row.id,
    was: "sending",
    state: transition.state,
    epochs: transition.raisesEpoch ? 1 : 0,
    verify_step: transition.verifyStep,
    keeps_doubt: transition.doubt === "keep",
    is_refusal: transition.isRefusal,
    request_id: answer.requestId,
    error_code: answer.errorCode,
    error_message: answer.errorMessage?.slice(0, 500) ?? null,
  };
}

/** A row that must be read at Stripe before it may be sent again. Safe to repeat. */
export async function demandVerification(control: SqlRunner, rowIds: readonly string[]): Promise<void> {
  if (rowIds.length === 0) return;
  await control.query(
    `UPDATE usage_report SET state = 'unknown', verify_step = 'check', verify_absent_at = NULL
     WHERE id = ANY ($1::bigint[]) AND state IN ('planned', 'unknown')`,
    [rowIds],
  );
}

/**
 * Takes rows out of R for good and marks their buckets, so that the next round plans the quantity in a new minute. Both in
 * one transaction: retired alone, a crash would lose the quantity. Safe to repeat.
 */
export async function retireRows(
  tx: SqlRunner,
  input: { account: AccountKey; rowIds: readonly string[]; state: "void" | "expired" },
): Promise<void> {
  if (input.rowIds.length === 0) return;
  const rows = await tx.query<{ feed_id: string; customer_id: string; bucket_start: Date; bucket_end: Date }>(
    `UPDATE usage_report SET state = $2, verify_step = 'none', doubt_since = NULL
     WHERE id = ANY ($1::bigint[]) AND state IN ('planned', 'unknown')
     RETURNING feed_id, customer_id, bucket_start, bucket_end`,
    [input.rowIds, input.state],
  );
  const byFeed = Map.groupBy(rows, (row) => row.feed_id);
  for (const [feedId, feedRows] of byFeed) {
    const buckets = feedRows.map((row): Bucket => ({
      customerId: row.customer_id,
      startAt: row.bucket_start.getTime(),
      endAt: row.bucket_end.getTime(),
    }));
    await insertMarks(tx, { account: input.account, feedId, buckets });
  }
}

/** Unfinished rows by state: what waits, and what an operator must look at. */
export async function countUnfinished(control: SqlRunner, account: AccountKey): Promise<ReadonlyMap<string, number>> {
  const rows = await control.query<{ state: string; rows: string }>(
    `SELECT state, count(*)::text AS rows FROM usage_report
     WHERE mode = $1 AND stripe_account = $2
       AND state IN ('planned', 'sending', 'unknown', 'rejected_sync', 'quarantined') GROUP BY state`,
    [account.mode, account.stripeAccount],
  );
  return new Map(rows.map((row) => [row.state, Number(row.rows)]));
}
