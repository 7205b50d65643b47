/** What a what-if comes to: by currency, by plan, by size of the change. Exact, in minor units; the order of customers changes nothing. */
import { assert } from "@tallyhouse/domain";
import { amountOfMinor } from "@tallyhouse/pricing";

/** What one customer would have paid instead, in one currency. */
export interface CustomerChange {
  readonly customer: string;
  readonly currency: string;
  /** Keys of its plans in the span, and of those that would have been. */
  readonly plans: readonly string[];
  readonly plansAfter: readonly string[];
  readonly periods: number;
  /** Minor units. */
  readonly before: bigint;
  readonly after: bigint;
}

/** One plan's revenue. */
export interface PlanChange {
  readonly plan: string;
  readonly planAfter: string;
  readonly periods: number;
  /** Amounts with all digits of the currency. */
  readonly before: string;
  readonly after: string;
  readonly change: string;
}

/** Customers whose bill changes by so much. */
export interface BucketChange {
  readonly bucket: string;
  readonly customers: number;
  /** Sum of their changes. */
  readonly change: string;
}

/** One customer among those whose bill changes most. */
export interface LargestChange {
  readonly customer: string;
  readonly before: string;
  readonly after: string;
  readonly change: string;
}

/** Everything about one currency. */
export interface CurrencySummary {
  readonly currency: string;
  readonly customers: number;
  readonly periods: number;
  readonly before: string;
  readonly after: string;
  readonly change: string;
  /** Customers who would have paid more, less, the same. */
  readonly more: number;
  readonly less: number;
  readonly same: number;
  readonly plans: readonly PlanChange[];
  /** All buckets, in order, empty ones too. */
  readonly distribution: readonly BucketChange[];
  readonly largestIncreases: readonly LargestChange[];
  readonly largestDecreases: readonly LargestChange[];
}

/** Customers in each of the two lists. */
const LARGEST_MAX = 10;

/** Buckets by change in percent of what was paid before, `upTo` included below 0 and excluded above. */
const FALLS = [50n, 25n, 10n] as const;
const RISES = [10n, 25n, 50n, 100n] as const;
const BUCKETS = [
  "−50 % and less",
  "−50 to −25 %",
  "−25 to −10 %",
  "−10 to 0 %",
  "unchanged",
  "0 to +10 %",
  "+10 to +25 %",
  "+25 to +50 %",
  "+50 to +100 %",
  "+100 % and more",
  "from nothing",
] as const;

/** The bucket of a change. A bound belongs to the bucket that is farther from 0. */
export function bucketOf(before: bigint, after: bigint): (typeof BUCKETS)[number] {
  const change = after - before;
  if (change === 0n) return "unchanged";
  if (before <= 0n) return "from nothing";
  const index =
    change < 0n
      ? FALLS.filter((percent) => -change * 100n < percent * before).length
      : 5 + RISES.filter((percent) => change * 100n >= percent * before).length;
  return BUCKETS[index] ?? "from nothing";
}

interface Sums {
  periods: number;
  before: bigint;
  after: bigint;
}

/** Grows with every customer; {@link SimulationSummary.summaries} may be asked at any time. */
export class SimulationSummary {
  readonly #currencies = new Map<string, CurrencyTally>();

  addCustomer(change: CustomerChange): void {
    this.#currency(change.currency).addCustomer(change);
  }

  addPeriod(
    currency: string,
    plans: { readonly plan: string; readonly planAfter: string },
    bill: Omit<Sums, "periods">,
  ): void {
    this.#currency(currency).addPeriod(plans, bill);
  }

  /** By currency. */
  summaries(): CurrencySummary[] {
    return [...this.#currencies.values()]
      .map((tally) => tally.summary())
      .sort((a, b) => (a.currency < b.currency ? -1 : 1));
  }

  #currency(currency: string): CurrencyTally {
    const tally = this.#currencies.get(currency) ?? new CurrencyTally(currency);
    this.#currencies.set(currency, tally);
    return tally;
  }
}

class CurrencyTally {
  readonly #currency: string;
  readonly #all: Sums = { periods: 0, before: 0n, after: 0n };
  readonly #counts = { customers: 0, more: 0, less: 0, same: 0 };
  readonly #plans = new Map<string, Sums & { readonly plan: string; readonly planAfter: string }>();
  readonly #buckets = new Map<string, { customers: number; change: bigint }>();
  readonly #increases: CustomerChange[] = [];
  readonly #decreases: CustomerChange[] = [];

  constructor(currency: string) {
    this.#currency = currency;
  }

  addPeriod(
    { plan, planAfter }: { readonly plan: string; readonly planAfter: string },
    bill: Omit<Sums, "periods">,
  ): void {
    const key = JSON.stringify([plan, planAfter]);
    const sums = this.#plans.get(key) ?? { plan, planAfter, periods: 0, before: 0n, after: 0n };
    this.#plans.set(key, sums);
    for (const each of [sums, this.#all]) {
      each.periods += 1;
      each.before += bill.before;
      each.after += bill.after;
    }
  }

  addCustomer(change: CustomerChange): void {
    const difference = change.after - change.before;
    this.#counts.customers += 1;
    if (difference === 0n) this.#counts.same += 1;
    else if (difference > 0n) this.#counts.more += 1;
    else this.#counts.less += 1;
    const name = bucketOf(change.before, change.after);
    const bucket = this.#buckets.get(name) ?? { customers: 0, change: 0n };
    this.#buckets.set(name, { customers: bucket.customers + 1, change: bucket.change + difference });
    if (difference > 0n) keepLargest(this.#increases, change);
    if (difference < 0n) keepLargest(this.#decreases, change);
  }

  summary(): CurrencySummary {
    const { periods, before, after } = this.#all;
    return {
      currency: this.#currency,
      customers: this.#counts.customers,
      periods,
      ...this.#amounts(before, after),
      more: this.#counts.more,
      less: this.#counts.less,
      same: this.#counts.same,
      plans: [...this.#plans.values()]
        .sort((a, b) => compareTexts(a.plan, b.plan) || compareTexts(a.planAfter, b.planAfter))
        .map((each) => ({
          plan: each.plan,
          planAfter: each.planAfter,
          periods: each.periods,
          ...this.#amounts(each.before, each.after),
        })),
      distribution: BUCKETS.map((bucket) => {
        const { customers, change } = this.#buckets.get(bucket) ?? { customers: 0, change: 0n };
        return { bucket, customers, change: amountOfMinor(change, this.#currency) };
      }),
      largestIncreases: this.#increases.map((each) => this.#largest(each)),
      largestDecreases: this.#decreases.map((each) => this.#largest(each)),
    };
  }

  #largest({ customer, before, after }: CustomerChange): LargestChange {
    return { customer, ...this.#amounts(before, after) };
  }

  #amounts(before: bigint, after: bigint): { before: string; after: string; change: string } {
    const text = (minor: bigint): string => amountOfMinor(minor, this.#currency);
    return { before: text(before), after: text(after), change: text(after - before) };
  }
}

/** Largest change first, equal ones by name, so that the order of arrival does not matter. */
function keepLargest(list: CustomerChange[], change: CustomerChange): void {
  const size = ({ before, after }: CustomerChange): bigint => (after > before ? after - before : before - after);
  const last = list.at(-1);
  if (list.length === LARGEST_MAX && last !== undefined && size(last) > size(change)) return;
  list.push(change);
  list.sort((a, b) => {
    const [x, y] = [size(a), size(b)];
    return x === y ? compareTexts(a.customer, b.customer) : x > y ? -1 : 1;
  });
  if (list.length > LARGEST_MAX) list.pop();
  assert(list.length <= LARGEST_MAX, "a list of the largest is short");
}

function compareTexts(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
