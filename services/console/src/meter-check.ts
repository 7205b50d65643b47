/** What a rule would have counted over stored usage, before anything is activated. */
import {
  type AnalyticsStore,
  assert,
  type CompiledMeter,
  compileMeter,
  type Contribution,
  type DeclaredMeter,
  formatInstant,
  formatQuantity,
  isJsonObject,
  type JsonObject,
  type Mode,
  parseJson,
  quantityFromScaled,
  uniqueHashOf,
  type UsageEvent,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import { Tally } from "@tallyhouse/usage";
import { type CheckedUsage, type CheckPage, readCheckPages } from "./meter-check-query.ts";

/** Unreadable values that one meter names. */
const EXAMPLES_MAX = 10;
/** Different texts of one customer that a unique_count check holds in memory: some 100 MB. */
const UNIQUE_TEXTS_MAX = 1_000_000;
/** From the beginning of time, for a rule that does not say since when it counts. */
const ALWAYS = "1970-01-01T00:00:00Z";

/** What became of usage events of a meter's type, at or after its `from`. They add up to `events`. */
export interface CheckCounts {
  readonly events: number;
  /** They would have counted. */
  readonly matched: number;
  /** A condition of `where` does not hold. */
  readonly skippedByWhere: number;
  /** The value is absent or null: they say nothing about the meter. */
  readonly withoutValue: number;
  /** The value is there and cannot be read: with the meter active they would have been refused as `invalid`. */
  readonly unreadable: number;
}

/** Where an unreadable value stands. */
export interface UnreadableExample {
  readonly customer: string;
  readonly source: string;
  readonly id: string;
  readonly occurredAt: string;
}

/** One line of the answer. The last one is `end`; an answer without it was cut off. */
export type CheckLine =
  | { readonly kind: "progress"; readonly type: string; readonly events: number; readonly totalEvents: number }
  /** `quantity` is what the usage API would say over the span; null when nothing matched a min, max or latest. */
  | ({
      readonly kind: "customer";
      readonly key: string;
      readonly customer: string;
      readonly quantity: string | null;
    } & CheckCounts)
  /** `quantity` is the customers' sum; null for min, max and latest, which have none. */
  | ({
      readonly kind: "meter";
      readonly key: string;
      readonly customers: number;
      readonly quantity: string | null;
      readonly examples: readonly UnreadableExample[];
    } & CheckCounts)
  | { readonly kind: "problem"; readonly detail: string }
  | { readonly kind: "end" };

/**
 * Counts every rule over the stored usage of its type that occurred in `[fromAt, toAt)` and not before its own `from`, with the code
 * that the aggregator counts with. Memory: one page of usage events and one customer's figures.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function* checkMeters(
  analytics: AnalyticsStore,
  input: {
    readonly mode: Mode;
    readonly rules: readonly DeclaredMeter[];
    readonly fromAt: number;
    readonly toAt: number;
  },
  readPages: typeof readCheckPages = readCheckPages,
): AsyncGenerator<CheckLine> {
  const { mode, fromAt, toAt } = input;
  for (const [type, rules] of Map.groupBy(input.rules, ({ eventType }) => eventType)) {
    const meters = rules.map((rule) => new CheckedMeter(mode, rule));
    let customer: string | null = null;
    let events = 0;
    yield { kind: "progress", type, events, totalEvents: 0 };
    for await (const page of readPages(analytics, { mode, type, fromAt, toAt })) {
      for (const usage of page.usage) {
        if (customer !== null && usage.customer !== customer) yield* closeCustomer(meters, customer);
        customer = usage.customer;
        const problem = addUsage(meters, usage, { mode, type });
        if (problem === null) continue;
        yield { kind: "problem", detail: problem };
        return;
      }
      events += page.usage.length;
      yield progressOf(type, events, page);
    }
    if (customer !== null) yield* closeCustomer(meters, customer);
    for (const meter of meters) yield meter.total();
  }
  yield { kind: "end" };
}

/** Copies make the total an estimate, so it is never less than what was read. */
function progressOf(type: string, events: number, { totalEvents }: CheckPage): CheckLine {
  return { kind: "progress", type, events, totalEvents: Math.max(events, totalEvents) };
}

function* closeCustomer(meters: readonly CheckedMeter[], customer: string): Generator<CheckLine> {
  for (const meter of meters) {
    const line = meter.closeCustomer(customer);
    if (line !== null) yield line;
  }
}

/** @returns why the check cannot go on, or null. */
function addUsage(
  meters: readonly CheckedMeter[],
  usage: CheckedUsage,
  kind: { readonly mode: Mode; readonly type: string },
): string | null {
  const data = parseJson(usage.payload);
  assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${usage.offset}`);
  const { customer, source, id, occurredAt } = usage;
  const event = { ...kind, customer, source, id, occurredAt, isStamped: false, decidedAt: null, data };
  for (const meter of meters) {
    meter.add(event, usage);
    if (meter.uniqueTexts <= UNIQUE_TEXTS_MAX) continue;
    return `customer "${customer}" has more than ${UNIQUE_TEXTS_MAX} different values of meter "${meter.key}": check a shorter span`;
  }
  return null;
}

type MutableCounts = { -readonly [Name in keyof CheckCounts]: number };

const noCounts = (): MutableCounts => ({ events: 0, matched: 0, skippedByWhere: 0, withoutValue: 0, unreadable: 0 });

/** One rule and what it counted: of the customer at hand, and of all before. */
class CheckedMeter {
  readonly key: string;
  readonly #rule: DeclaredMeter;
  readonly #meter: CompiledMeter;
  /** Holds for the usage events that `where` lets through, whatever their value. */
  readonly #filter: CompiledMeter;
  readonly #examples: UnreadableExample[] = [];
  readonly #all = noCounts();
  #customers = 0;
  #sum = 0n;
  #current = noCounts();
  #tally: Tally;

  constructor(mode: Mode, declared: DeclaredMeter) {
    const rule = { ...declared, from: declared.from ?? ALWAYS };
    const { value: _value, ...filter } = rule;
    const version = { mode, meter: rule.key, version: 1 };
    this.key = rule.key;
    this.#rule = declared;
    this.#meter = compileMeter({ ...version, rule });
    this.#tally = new Tally(rule.aggregation);
    this.#filter = compileMeter({ ...version, rule: { ...filter, aggregation: "count" } });
  }

  get uniqueTexts(): number {
    return this.#tally.hashes.size;
  }

  add(event: UsageEvent & { readonly occurredAt: number; readonly data: JsonObject }, place: CheckedUsage): void {
    if (event.occurredAt < this.#meter.fromAt) return;
    const counts = this.#current;
    counts.events += 1;
    const contribution = this.#meter.contributionOf(event);
    switch (contribution.kind) {
      case "none":
        if (this.#filter.contributionOf(event).kind === "none") counts.skippedByWhere += 1;
        else counts.withoutValue += 1;
        return;
      case "invalid":
        counts.unreadable += 1;
        if (this.#examples.length < EXAMPLES_MAX) this.#examples.push(exampleOf(place));
        return;
      case "quantity":
        counts.matched += 1;
        this.#count(contribution, place);
    }
  }

  #count(contribution: Extract<Contribution, { kind: "quantity" }>, place: CheckedUsage): void {
    const { quantity, uniqueText } = contribution;
    const newest = [place.occurredAt, place.stream, place.partition, place.offset].map(BigInt);
    this.#tally.add({ quantity, newest, hash: uniqueText === null ? null : uniqueHashOf(uniqueText).toString() });
  }

  /** The customer's line; null when the meter saw none of its usage. */
  closeCustomer(customer: string): CheckLine | null {
    const counts = this.#current;
    if (counts.events === 0) return null;
    const { aggregation } = this.#rule;
    const isNothing = counts.matched === 0 && !isSum(aggregation);
    const quantity = counts.matched === 0 ? ZERO_QUANTITY : this.#tally.quantity;
    for (const name of Object.keys(counts) as (keyof CheckCounts)[]) this.#all[name] += counts[name];
    if (counts.matched > 0) this.#customers += 1;
    this.#sum += quantity;
    this.#current = noCounts();
    this.#tally = new Tally(aggregation);
    return {
      kind: "customer",
      key: this.key,
      customer,
      quantity: isNothing ? null : formatQuantity(quantity),
      ...counts,
    };
  }

  total(): CheckLine {
    return {
      kind: "meter",
      key: this.key,
      customers: this.#customers,
      quantity: isSum(this.#rule.aggregation) ? formatQuantity(quantityFromScaled(this.#sum)) : null,
      examples: this.#examples,
      ...this.#all,
    };
  }
}

/** Whether quantities of customers add up, and nothing is 0. */
function isSum(aggregation: DeclaredMeter["aggregation"]): boolean {
  return aggregation === "sum" || aggregation === "count" || aggregation === "unique_count";
}

function exampleOf({ customer, source, id, occurredAt }: CheckedUsage): UnreadableExample {
  return { customer, source, id, occurredAt: formatInstant(occurredAt) };
}
