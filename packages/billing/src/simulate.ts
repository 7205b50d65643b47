/** What-if: past usage of every customer, rated by the plans it had and by those under trial. */
import { formatInstant, type Mode, type Quantity } from "@tallyhouse/domain";
import { type BillingPeriod, periodsOf } from "@tallyhouse/plans";
import { amountOfMinor } from "@tallyhouse/pricing";
import { type MeterDefinition, readDefinitions, readWatermark } from "@tallyhouse/usage";
import { countPlannedCustomers, listPlannedCustomers, readBillingState } from "./billing-state.ts";
import { readPeriodTotalsOfMany } from "./period-totals.ts";
import { feedsOf, pairOf, type PlanPair, rerate, type SkipReason, type Trial } from "./rerate.ts";
import type { BillingPorts } from "./running-bill.ts";
import { type CurrencySummary, type CustomerChange, SimulationSummary } from "./simulation-summary.ts";

/** One what-if. */
export interface SimulationQuestion {
  readonly mode: Mode;
  /** Periods that begin in `[fromAt, toAt)` are rated again. */
  readonly fromAt: number;
  readonly toAt: number;
  readonly trial: Trial;
}

/** One customer's figures in one currency; amounts with all digits of the currency. */
export interface CustomerLine {
  readonly customer: string;
  readonly currency: string;
  readonly plans: readonly string[];
  readonly plansAfter: readonly string[];
  readonly periods: number;
  readonly before: string;
  readonly after: string;
  readonly change: string;
}

/** A period that is left out of both sides. `usage`: it cannot be read. */
export interface SkippedLine {
  readonly customer: string;
  readonly start: string;
  readonly plan: string;
  readonly planAfter: string;
  readonly reason: SkipReason | "usage";
}

/** One line of the answer. Only `begin` names an instant of the reading: the others are equal for equal usage. */
export type SimulationLine =
  | { readonly kind: "begin"; readonly customers: number; readonly asOf: string | null }
  | { readonly kind: "progress"; readonly customers: number; readonly totalCustomers: number }
  | { readonly kind: "customers"; readonly customers: readonly CustomerLine[] }
  | { readonly kind: "skipped"; readonly periods: readonly SkippedLine[] }
  | { readonly kind: "summary"; readonly currencies: readonly CurrencySummary[]; readonly skippedPeriods: number }
  | { readonly kind: "problem"; readonly detail: string }
  | { readonly kind: "end" };

/** Customers of one page: their names and bounds fit one statement for each meter. */
const PAGE_CUSTOMERS = 2_000;
/** Entries of one line: 250 of the longest names stay below 1 MiB. */
const LINE_ENTRIES_MAX = 250;

/**
 * Rates every customer's periods that begin in the span, page by page, in the order of their ids. Reads alone; nothing is stored.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function* simulate(ports: BillingPorts, question: SimulationQuestion): AsyncGenerator<SimulationLine> {
  const { analytics, control, stream } = ports;
  const { mode } = question;
  const watermarkAt = await readWatermark(analytics, stream);
  const definitions = await readDefinitions(analytics, stream, { mode });
  const totalCustomers = await countPlannedCustomers(control, mode);
  yield { kind: "begin", customers: totalCustomers, asOf: watermarkAt === null ? null : formatInstant(watermarkAt) };
  const summary = new SimulationSummary();
  let [after, customers, skippedPeriods] = ["", 0, 0];
  for (;;) {
    const page = await listPlannedCustomers(control, { mode, after, limit: PAGE_CUSTOMERS });
    const last = page.at(-1);
    if (last === undefined) break;
    after = last;
    const { lines, skipped } = await simulatePage(ports, question, { page, watermarkAt, definitions, summary });
    for (const part of partsOf(lines)) yield { kind: "customers", customers: part };
    for (const part of partsOf(skipped)) yield { kind: "skipped", periods: part };
    skippedPeriods += skipped.length;
    customers += page.length;
    yield { kind: "progress", customers, totalCustomers };
  }
  yield { kind: "summary", currencies: summary.summaries(), skippedPeriods };
  yield { kind: "end" };
}

interface Page {
  readonly page: readonly string[];
  readonly watermarkAt: number | null;
  readonly definitions: readonly MeterDefinition[];
  readonly summary: SimulationSummary;
}

/** A period of one customer under both plans. */
interface Trialled {
  readonly customer: string;
  readonly period: BillingPeriod;
  readonly pair: Extract<PlanPair, { kind: "pair" }>;
}

async function simulatePage(
  { analytics, control }: BillingPorts,
  { mode, fromAt, toAt, trial }: SimulationQuestion,
  { page, watermarkAt, definitions, summary }: Page,
): Promise<{ readonly lines: readonly CustomerLine[]; readonly skipped: readonly SkippedLine[] }> {
  const state = await readBillingState(control, { mode, customers: page });
  const skipped: SkippedLine[] = [];
  const trialled: Trialled[] = [];
  const skip = (customer: string, period: BillingPeriod, why: Pick<SkippedLine, "planAfter" | "reason">): void => {
    const { planAfter, reason } = why;
    skipped.push({ customer, start: formatInstant(period.startAt), plan: period.version.key, planAfter, reason });
  };
  for (const customer of page) {
    const history = state.customers.get(customer)?.history;
    const periods = history === undefined ? [] : periodsOf(history, { startAt: fromAt, endAt: toAt });
    for (const period of periods) {
      if (period.startAt < fromAt) continue;
      const pair = pairOf(period, trial);
      if (pair.kind === "pair") trialled.push({ customer, period, pair });
      else skip(customer, period, pair);
    }
  }
  const readings = await readPeriodTotalsOfMany(analytics, {
    mode,
    cutAt: null,
    watermarkAt,
    definitions,
    periods: trialled.map(({ customer, period: { startAt, endAt }, pair }) => {
      return { customer, startAt, endAt, items: feedsOf(pair) };
    }),
  });
  const changes = new Map<string, CustomerChange>();
  for (const [index, { customer, period, pair }] of trialled.entries()) {
    const reading = readings[index];
    if (reading?.kind !== "totals") {
      skip(customer, period, { planAfter: pair.planAfter, reason: "usage" });
      continue;
    }
    const quantities = new Map<string, Quantity>(reading.totals.map(({ item, quantity }) => [item, quantity]));
    const bill = rerate(pair, period, quantities);
    const plans = { plan: period.version.key, planAfter: pair.planAfter };
    summary.addPeriod(pair.before.currency, plans, bill);
    addTo(changes, { customer, currency: pair.before.currency, ...plans, ...bill });
  }
  for (const change of changes.values()) summary.addCustomer(change);
  return { lines: [...changes.values()].map(lineOf), skipped };
}

/** A customer whose plans have several currencies is one entry in each. */
function addTo(
  changes: Map<string, CustomerChange>,
  period: Pick<CustomerChange, "customer" | "currency" | "before" | "after"> & {
    readonly plan: string;
    readonly planAfter: string;
  },
): void {
  const { customer, currency, plan, planAfter, before, after } = period;
  const key = JSON.stringify([customer, currency]);
  const known = changes.get(key);
  changes.set(key, {
    customer,
    currency,
    plans: withName(known?.plans ?? [], plan),
    plansAfter: withName(known?.plansAfter ?? [], planAfter),
    periods: (known?.periods ?? 0) + 1,
    before: (known?.before ?? 0n) + before,
    after: (known?.after ?? 0n) + after,
  });
}

function withName(names: readonly string[], name: string): readonly string[] {
  return names.includes(name) ? names : [...names, name];
}

function lineOf({ currency, before, after, ...rest }: CustomerChange): CustomerLine {
  const text = (minor: bigint): string => amountOfMinor(minor, currency);
  return { ...rest, currency, before: text(before), after: text(after), change: text(after - before) };
}

function* partsOf<Entry>(entries: readonly Entry[]): Generator<readonly Entry[]> {
  for (let from = 0; from < entries.length; from += LINE_ENTRIES_MAX)
    yield entries.slice(from, from + LINE_ENTRIES_MAX);
}
