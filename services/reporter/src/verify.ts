/** Reading back: whether a row whose fate no answer tells was counted (stripe.md 3.5). */
import { type ControlStore, DAY_MS, formatQuantity, type SqlRunner } from "@tallyhouse/domain";
import { type Clock, pause } from "@tallyhouse/runtime";
import type { AccountKey } from "./account.ts";
import { recordset, sqlInstant } from "./ledger-row.ts";
import type { Pacer } from "./pacer.ts";
import { retireRows } from "./send-ledger.ts";
import type { StripeApi } from "./stripe/stripe-api.ts";
import { quantityOfDecimal } from "@tallyhouse/usage";

/** Rows read back per round. Doubt that needs proof is rare; a flood of it is for an operator to see, not to hurry. */
const VERIFY_ROWS_MAX = 200;
/** Planning's bound: a row proven absent and older is planned anew instead of being repeated. */
const REPEAT_EVENT_AGE_MAX_MS = 34 * DAY_MS;

/** `absent_once` waits for a second reading; `resend` permits one repeat; `void` and `expired` give the quantity back to planning. */
export type Verdict = "accepted" | "absent_once" | "resend" | "void" | "expired" | "quarantined";

/**
 * What a reading of the row's minute proves. The minute belongs to the row, or to it and `others` (accepted rows that share
 * it), so the sum is one of two numbers; any other is somebody else's usage or a lost count, and a person looks. Pure.
 */
export function verdictOf(input: {
  /** Stripe's JSON number for the minute. */
  reading: number;
  value: bigint;
  others: bigint;
  step: "check" | "recheck";
  wasAbsentBefore: boolean;
  isTooOld: boolean;
}): Verdict {
  if (isSameNumber(input.reading, input.others + input.value)) return "accepted";
  if (!isSameNumber(input.reading, input.others)) return "quarantined";
  if (!input.wasAbsentBefore) return "absent_once";
  if (input.step === "recheck") return "void";
  return input.isTooOld ? "expired" : "resend";
}

/** Stripe's sums are JSON numbers: both sides are compared at the 15 significant digits that a double keeps. */
function isSameNumber(reading: number, quantity: bigint): boolean {
  return reading.toPrecision(15) === Number(formatQuantity(quantity)).toPrecision(15);
}

interface VerifiableRow {
  readonly id: string;
  readonly stripeCustomerId: string;
  readonly stripeMeterId: string;
  readonly eventAt: number;
  readonly value: bigint;
  readonly others: bigint;
  readonly step: "check" | "recheck";
  readonly wasAbsentBefore: boolean;
}

/** What one round of verification decided. */
export type VerifySummary = ReadonlyMap<Verdict, number>;

/**
 * Reads back every row that may be read now: `settleMs` after its last attempt, and a third of that after a reading that
 * lacked it. Nothing is written before all readings are in; a call that fails leaves its row for the next round.
 */
export async function verifyRound(input: {
  account: AccountKey;
  stripe: StripeApi;
  control: ControlStore;
  pacer: Pacer;
  clock: Clock;
  settleMs: number;
  signal: AbortSignal;
}): Promise<VerifySummary> {
  const { account, control, clock, pacer, signal, stripe } = input;
  const nowAt = clock.now();
  const rows = await verifiableRows(control, { account, nowAt, settleMs: input.settleMs });
  const verdicts = new Map<Verdict, string[]>();
  for (const row of rows) {
    while (pacer.take(1) === 0 && !signal.aborted) await pause(pacer.waitMs(1), signal);
    if (signal.aborted) break;
    const { stripeMeterId, stripeCustomerId, eventAt } = row;
    const result = await stripe.minuteTotal({ stripeMeterId, stripeCustomerId, minuteAt: eventAt });
    // A refusal is about this row (its customer is gone, say) and leaves it in doubt, visibly; anything else is about us all.
    if (result.kind === "refused") continue;
    if (result.kind !== "done") break;
    const isTooOld = row.eventAt <= nowAt - REPEAT_EVENT_AGE_MAX_MS;
    const verdict = verdictOf({ ...row, reading: result.value, isTooOld });
    verdicts.set(verdict, [...(verdicts.get(verdict) ?? []), row.id]);
  }
  if (verdicts.size === 0) return new Map();
  await control.transaction(async (tx) => {
    await writeVerdicts(tx, { verdicts, nowAt });
    for (const state of ["void", "expired"] as const) {
      await retireRows(tx, { account, rowIds: verdicts.get(state) ?? [], state });
    }
  });
  return new Map([...verdicts].map(([verdict, ids]) => [verdict, ids.length]));
}

async function verifiableRows(
  control: SqlRunner,
  input: { account: AccountKey; nowAt: number; settleMs: number },
): Promise<VerifiableRow[]> {
  const rows = await control.query<{
    id: string;
    stripe_customer_id: string;
    stripe_meter_id: string;
    event_ts: Date;
    value: string;
    others: string;
    verify_step: VerifiableRow["step"];
    was_absent: boolean;
  }>(
    `SELECT u.id::text AS id, u.stripe_customer_id, u.stripe_meter_id, u.event_ts, u.value::text AS value, u.verify_step,
       u.verify_absent_at IS NOT NULL AS was_absent,
       (SELECT coalesce(sum(o.value), 0) FROM usage_report AS o
        WHERE o.mode = u.mode AND o.stripe_account = u.stripe_account AND o.stripe_meter_id = u.stripe_meter_id
          AND o.stripe_customer_id = u.stripe_customer_id AND o.event_ts = u.event_ts
          AND o.state IN ('accepted', 'confirmed'))::text AS others
     FROM usage_report AS u
     WHERE u.mode = $1 AND u.stripe_account = $2 AND u.state = 'unknown' AND u.verify_step IN ('check', 'recheck')
       AND u.last_attempt_at <= $3::timestamptz
       AND (u.verify_absent_at IS NULL OR u.verify_absent_at <= $4::timestamptz)
     ORDER BY u.last_attempt_at LIMIT $5::int`,
    [
      input.account.mode,
      input.account.stripeAccount,
      sqlInstant(input.nowAt - input.settleMs),
      sqlInstant(input.nowAt - input.settleMs / 3),
      VERIFY_ROWS_MAX,
    ],
  );
  return rows.map((row) => ({
    id: row.id,
    stripeCustomerId: row.stripe_customer_id,
    stripeMeterId: row.stripe_meter_id,
    eventAt: row.event_ts.getTime(),
    value: quantityOfDecimal(row.value),
    others: quantityOfDecimal(row.others),
    step: row.verify_step,
    wasAbsentBefore: row.was_absent,
  }));
}

async function writeVerdicts(
  tx: SqlRunner,
  input: { verdicts: ReadonlyMap<Verdict, readonly string[]>; nowAt: number },
): Promise<void> {
  const decided = (["accepted", "absent_once", "resend", "quarantined"] as const).flatMap((verdict) =>
    (input.verdicts.get(verdict) ?? []).map((id) => ({ id, verdict })),
  );
  if (decided.length === 0) return;
  await tx.query(
    `UPDATE usage_report AS u SET
       state = CASE v.verdict WHEN 'accepted' THEN 'accepted' WHEN 'quarantined' THEN 'quarantined' ELSE u.state END,
       accepted_at = CASE v.verdict WHEN 'accepted' THEN $2::timestamptz ELSE u.accepted_at END,
       doubt_since = CASE WHEN v.verdict IN ('accepted', 'resend') THEN NULL ELSE u.doubt_since END,
       verify_absent_at = CASE v.verdict WHEN 'absent_once' THEN $2::timestamptz END,
       verify_step = CASE v.verdict WHEN 'resend' THEN 'resend' WHEN 'accepted' THEN 'none' ELSE u.verify_step END
     FROM json_to_recordset($1::text::json) AS v (id bigint, verdict text)
     WHERE u.id = v.id AND u.state = 'unknown'`,
    [recordset(decided), sqlInstant(input.nowAt)],
  );
}
