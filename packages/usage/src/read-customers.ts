/** Which customers use a meter most. */
import { type AnalyticsStore, type Mode, type Quantity } from "@tallyhouse/domain";
import { visitCountedUsage } from "./counted-events.ts";
import type { MeterDefinition } from "./meter-definitions.ts";
import type { Refusal } from "./question.ts";
import { addRollups, compareTexts, correctedWindows, selectWhole } from "./read-usage.ts";
import {
  type CorrectedWindows,
  havingOf,
  QUANTITY_SQL,
  rangeParameters,
  type RollupRange,
  rangeSql,
  sourceOf,
} from "./rollup-query.ts";
import { quantityOfDecimal, Tally } from "./tally.ts";
import { UTC } from "./zone.ts";

/** Customers of one meter version within whole windows. */
export interface CustomersQuestion {
  readonly mode: Mode;
  readonly definition: MeterDefinition;
  /** Multiples of 15 minutes, half-open. */
  readonly fromAt: number;
  readonly toAt: number;
  /** Customers wanted. */
  readonly limit: number;
  /** More usage events to fold one by one are refused. */
  readonly eventsMax: number;
}

/** What one customer used. */
export interface CustomerTotal {
  readonly customer: string;
  readonly quantity: Quantity;
}

/** Largest first, or why not. */
export type CustomersReading =
  | { readonly kind: "customers"; readonly customers: readonly CustomerTotal[] }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * Customers by quantity, largest first, equal ones by name. Customers with a corrected window of a meter that cannot be corrected by a
 * difference are added up on their own and then ranked among the others.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readCustomerTotals(
  analytics: AnalyticsStore,
  question: CustomersQuestion,
): Promise<CustomersReading> {
  const { mode, definition, fromAt, toAt, limit } = question;
  const range: RollupRange = { mode, customer: null, version: definition.version, fromAt, toAt, cutAt: null };
  const without = await correctedWindows(analytics, range);
  const corrected = without === null ? null : await totalsOfCorrected(analytics, question, without);
  if (without === null || corrected === null) return { kind: "refused", refusal: { kind: "events" } };
  const others = await selectLargest(analytics, { ...range, limit, except: without.map(({ customer }) => customer) });
  const customers = [...others, ...corrected].sort(
    (a, b) => compareQuantities(b.quantity, a.quantity) || compareTexts([a.customer], [b.customer]),
  );
  return { kind: "customers", customers: customers.slice(0, limit) };
}

/** Null when more usage events would have to be folded than the question takes. */
async function totalsOfCorrected(
  analytics: AnalyticsStore,
  question: CustomersQuestion,
  without: readonly CorrectedWindows[],
): Promise<readonly CustomerTotal[] | null> {
  if (without.length === 0) return [];
  const { mode, definition, fromAt, toAt, eventsMax } = question;
  const { version } = definition;
  const tallies = new Map<string, Tally>();
  const tallyOf = (customer: string): Tally => {
    const tally = tallies.get(customer) ?? new Tally(version.rule.aggregation);
    tallies.set(customer, tally);
    return tally;
  };
  const isComplete = await visitCountedUsage(
    analytics,
    { mode, definition, cutAt: null, edges: null, windows: without, eventsMax },
    ({ customer, part }) => tallyOf(customer).add(part),
  );
  if (!isComplete) return null;
  const customers = without.map(({ customer }) => customer);
  const hashes = new Set<string>();
  for (const tally of tallies.values()) for (const hash of tally.hashes) hashes.add(hash);
  const whole = {
    ...{ mode, customer: null, version, fromAt, toAt, cutAt: null },
    ...{ customers, groupBy: [], window: "total" as const, zone: UTC, without, rowsMax: customers.length },
  };
  for (const row of await selectWhole(analytics, whole, [...hashes]))
    addRollups(tallyOf(row.groupValues[0] ?? ""), row);
  return [...tallies].map(([customer, { quantity }]) => ({ customer, quantity }));
}

/** Every customer's rows of the mode are looked at: the meter comes after the customer in the primary key. */
async function selectLargest(
  analytics: AnalyticsStore,
  input: RollupRange & { readonly limit: number; readonly except: readonly string[] },
): Promise<readonly CustomerTotal[]> {
  const { aggregation } = input.version.rule;
  const rows = await analytics.select<{ customer: string; quantity: string }>(
    `SELECT r.customer AS customer, ${QUANTITY_SQL[aggregation]} AS quantity
     FROM ${sourceOf(aggregation)}
     WHERE ${rangeSql(input)} AND r.customer NOT IN {except:Array(String)}
     GROUP BY customer
     ${havingOf(aggregation)}
     ORDER BY toDecimal128(quantity, 9) DESC, customer
     LIMIT {limit:UInt32}`,
    { ...rangeParameters(input), except: input.except, limit: input.limit },
  );
  return rows.map(({ customer, quantity }) => ({ customer, quantity: quantityOfDecimal(quantity) }));
}

function compareQuantities(a: Quantity, b: Quantity): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
