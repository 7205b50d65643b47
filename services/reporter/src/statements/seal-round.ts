/** Seals what is due: each planned customer's periods that ended and whose cut may be read. */
import { listPlannedCustomers, readBillingState } from "@tallyhouse/billing";
import { type ControlStore, type Mode, TallyhouseError } from "@tallyhouse/domain";
import { type BillingHistory, type BillingPeriod, periodsOf, ratedPlanOf, type Span } from "@tallyhouse/plans";
import { type SealingRound, sealOf, statementPeriodOf } from "./context.ts";
import { insertStatement, markWhatTheLookPassed } from "./statement-writes.ts";

/** Customers whose history is read at once: some MB. */
const CUSTOMERS_PAGE = 500;
/** Statements of one round; the next one goes on behind the last customer. */
const SEALED_MAX = 1_000;
/** This many customers in a row whom a store did not answer: it is away, and not one customer's usage too large for it. */
const OUTAGES_MAX = 3;

/** Where a pass over all customers stands. */
export interface SealPass {
  /** Goes on behind this customer; empty at the beginning. */
  afterCustomer: string;
  sealed: number;
  /** Due periods that stayed unsealed, by reason. */
  readonly unsealed: Map<string, number>;
  /** The earliest cut of those. */
  oldestCutAt: number | null;
  outagesInARow: number;
}

export function beginPass(): SealPass {
  return { afterCustomer: "", sealed: 0, unsealed: new Map(), oldestCutAt: null, outagesInARow: 0 };
}

/**
 * Goes on with a pass until it is through or SEALED_MAX statements were made. One customer who cannot be sealed holds up no other.
 * @returns whether the pass is through.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry): what was sealed stays sealed, the pass can go on.
 */
export async function sealDue(round: SealingRound, pass: SealPass, signal: AbortSignal): Promise<boolean> {
  const { control } = round.ports;
  const { mode } = round;
  const lastAt = pass.sealed + SEALED_MAX;
  for (;;) {
    const customers = await listPlannedCustomers(control, { mode, after: pass.afterCustomer, limit: CUSTOMERS_PAGE });
    const state = await readBillingState(control, { mode, customers });
    const sealed = await sealedSpans(control, { mode, customers });
    for (const customer of customers) {
      if (signal.aborted || pass.sealed >= lastAt) return false;
      const history = state.customers.get(customer)?.history;
      if (history !== undefined)
        await sealCustomer(round, pass, { customer, history, sealed: sealed.get(customer) ?? [] });
      pass.afterCustomer = customer;
    }
    if (customers.length < CUSTOMERS_PAGE) return true;
  }
}

async function sealedSpans(
  control: ControlStore,
  { mode, customers }: { readonly mode: Mode; readonly customers: readonly string[] },
): Promise<ReadonlyMap<string, readonly Span[]>> {
  const rows = await control.query<{ customer_id: string; period_start: Date; period_end: Date }>(
    `SELECT customer_id, period_start, period_end FROM statement
     WHERE mode = $1 AND customer_id = ANY ($2::text[]) AND seq = 0`,
    [mode, customers],
  );
  const spans = Map.groupBy(rows, ({ customer_id: id }) => id);
  return new Map(
    [...spans].map(([customer, all]) => [
      customer,
      all.map((row) => ({ startAt: row.period_start.getTime(), endAt: row.period_end.getTime() })),
    ]),
  );
}

interface Customer {
  readonly customer: string;
  readonly history: BillingHistory;
  readonly sealed: readonly Span[];
}

/** The customer's due periods, the oldest first. */
async function sealCustomer(round: SealingRound, pass: SealPass, of: Customer): Promise<void> {
  const { logger, metrics } = round.ports;
  for (const period of duePeriods(round, of)) {
    const outcome = await attempt(round, pass, { ...of, period });
    if (outcome.kind === "sealed") {
      pass.sealed += 1;
      metrics.sealed({ mode: round.mode, kind: "statement" });
      continue;
    }
    const { reason, detail } = outcome;
    pass.unsealed.set(reason, (pass.unsealed.get(reason) ?? 0) + 1);
    const cutAt = round.cutOfPeriod(period.endAt);
    pass.oldestCutAt = Math.min(pass.oldestCutAt ?? cutAt, cutAt);
    const periodStart = new Date(period.startAt).toISOString();
    if (outcome.kind === "failed")
      logger.error({ customer: of.customer, mode: round.mode, periodStart, reason, detail }, "a period is not sealed");
  }
}

/** Ended, with a cut that the watermark has reached, and of no time that a statement covers already. */
function duePeriods(round: SealingRound, { history, sealed }: Customer): readonly BillingPeriod[] {
  const { watermarkAt } = round.sealed;
  return periodsOf(history, { startAt: 0, endAt: watermarkAt }).filter(
    ({ startAt, endAt }) =>
      round.cutOfPeriod(endAt) <= watermarkAt && !sealed.some((span) => span.startAt < endAt && span.endAt > startAt),
  );
}

type Attempt =
  | { readonly kind: "sealed" }
  | { readonly kind: "waits" | "failed"; readonly reason: string; readonly detail: string };

async function attempt(
  round: SealingRound,
  pass: SealPass,
  of: Customer & { readonly period: BillingPeriod },
): Promise<Attempt> {
  try {
    const outcome = await sealPeriod(round, of);
    pass.outagesInARow = 0;
    return outcome;
  } catch (error) {
    const isOutage = error instanceof TallyhouseError && error.code === "STORE_UNAVAILABLE";
    pass.outagesInARow = isOutage ? pass.outagesInARow + 1 : 0;
    if (pass.outagesInARow >= OUTAGES_MAX) {
      pass.outagesInARow = 0;
      throw error;
    }
    // A boundary: whatever is wrong with one customer, the others get their statements.
    round.ports.logger.error({ err: error, customer: of.customer, mode: round.mode }, "a customer's period failed");
    return { kind: "failed", reason: isOutage ? "unavailable" : "error", detail: String(error) };
  }
}

async function sealPeriod(
  round: SealingRound,
  { customer, period }: { readonly customer: string; readonly period: BillingPeriod },
): Promise<Attempt> {
  const { clock, control } = round.ports;
  const plan = ratedPlanOf(period.version, period.contract);
  const cutAt = round.cutOfPeriod(period.endAt);
  const sealing = await sealOf(round, { customer, period: statementPeriodOf(period), plan, cutAt });
  if (sealing.kind === "open") return { kind: "waits", reason: sealing.reason, detail: "" };
  if (sealing.kind === "refused") {
    const { reason, detail } = sealing;
    // Usage that retention removed does not come back: said by the metric, not once a round in the log.
    return { kind: reason === "expired" ? "waits" : "failed", reason, detail };
  }
  const { document } = sealing;
  await control.transaction(async (tx) => {
    const sealedAt = clock.now();
    if (await insertStatement(tx, document, sealedAt)) await markWhatTheLookPassed(tx, document.id, sealedAt);
  });
  return { kind: "sealed" };
}
