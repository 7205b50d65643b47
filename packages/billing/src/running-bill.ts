/** The bill of the running period, as far as it is known: the reads and the function that the statement is made with. */
import type { AnalyticsStore, ControlStore, Mode } from "@tallyhouse/domain";
import { type BillingPeriod, periodAt, ratedPlanOf } from "@tallyhouse/plans";
import { type Bill, type ItemTotal, type RatedPlan, rateBill } from "@tallyhouse/pricing";
import { type MeterDefinition, readDefinitions, readWatermark, type Refusal, type StreamSize } from "@tallyhouse/usage";
import { type BilledCustomer, readBillingState } from "./billing-state.ts";
import { readPeriodTotals } from "./period-totals.ts";

/** What bills are read from. */
export interface BillingPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly stream: StreamSize;
}

/** A customer's period, its plan, what was counted in it, and the bill of that. */
export interface RunningBill {
  readonly customer: BilledCustomer;
  readonly period: BillingPeriod;
  readonly rated: RatedPlan;
  /** One per item of the plan. */
  readonly totals: readonly ItemTotal[];
  readonly bill: Bill;
  /** Everything that the log received before it is in the totals; null until every partition reported once. */
  readonly watermarkAt: number | null;
  readonly definitions: readonly MeterDefinition[];
}

/** `no_plan`: the customer is on none at that instant. `refused`: these items' usage cannot be read, and why. */
export type RunningReading =
  | { readonly kind: "running"; readonly running: RunningBill }
  | { readonly kind: "unknown" }
  | { readonly kind: "no_plan" }
  | { readonly kind: "refused"; readonly items: readonly string[]; readonly refusal: Refusal };

/**
 * The bill of the period that holds the instant, of what is stored now. Once the period has ended and its cut is sealed, the statement
 * says the same to the last digit: both are `readPeriodTotals` and `rateBill`.
 *
 * Watermark, then meters, then totals: in another order it could vouch for usage that they do not hold yet (breaks G7).
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readRunningBill(
  ports: BillingPorts,
  question: { readonly mode: Mode; readonly customer: string; readonly at: number },
): Promise<RunningReading> {
  const { analytics, control, stream } = ports;
  const { mode, at } = question;
  const state = await readBillingState(control, { mode, customers: [question.customer] });
  const customer = state.customers.get(question.customer);
  if (customer === undefined) return { kind: "unknown" };
  const period = periodAt(customer.history, at);
  if (period === null) return { kind: "no_plan" };
  const rated = ratedPlanOf(period.version, period.contract);
  const watermarkAt = await readWatermark(analytics, stream);
  const definitions = await readDefinitions(analytics, stream, { mode });
  const { startAt, endAt } = period;
  const reading = await readPeriodTotals(analytics, {
    mode,
    customer: customer.customer,
    startAt,
    endAt,
    items: rated.items,
    cutAt: null,
    watermarkAt,
    definitions,
  });
  if (reading.kind === "refused") return reading;
  const { totals } = reading;
  const bill = rateBill(rated, totals, { startAt, endAt });
  return { kind: "running", running: { customer, period, rated, totals, bill, watermarkAt, definitions } };
}
