/** Totals of every item of a plan over a billing period: the one road from stored usage to what is rated. */
import {
  type AnalyticsStore,
  assert,
  type Mode,
  type Quantity,
  quantityFromScaled,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import type { ItemTotal, RatedItem } from "@tallyhouse/pricing";
import {
  customerBytes,
  CUSTOMERS_BYTES_MAX,
  type CustomerSpan,
  type MeterDefinition,
  readTotalsOfMany,
  type Refusal,
} from "@tallyhouse/usage";

/** What of an item decides its total. */
export type CountedItem = Pick<RatedItem, "key" | "meter" | "meterVersion" | "where">;

/** One customer's period `[startAt, endAt)` of any second, and the items to count in it. */
export interface CountedPeriod {
  readonly customer: string;
  readonly startAt: number;
  readonly endAt: number;
  readonly items: readonly CountedItem[];
}

/** As known when. */
export interface TotalsContext {
  readonly mode: Mode;
  /** A cut that may be read (`readSeal`), for totals that stay the same for ever; null: everything stored. */
  readonly cutAt: number | null;
  /** Read before the definitions, and these before the totals. */
  readonly watermarkAt: number | null;
  readonly definitions: readonly MeterDefinition[];
}

/** Totals, or which items could not be counted and why. */
export type PeriodReading =
  | {
      readonly kind: "totals";
      /** One per item, in their order, also where nothing was used. */
      readonly totals: readonly ItemTotal[];
      /** Items whose meter version counts nowhere yet (as known at the cut): their total is 0. */
      readonly missing: readonly string[];
    }
  | { readonly kind: "refused"; readonly items: readonly string[]; readonly refusal: Refusal };

/** Groups of one statement: 2,500 customers with some 40 of the values that their plan's items name. */
const ROWS_MAX = 100_000;
/** Usage events at edges and in corrected windows of one statement: some minutes of folding. */
const EVENTS_MAX = 20_000_000;

/**
 * Totals of one period. Statements and the running bill read them here, so what is shown is what is billed.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readPeriodTotals(
  analytics: AnalyticsStore,
  question: CountedPeriod & TotalsContext,
): Promise<PeriodReading> {
  const [reading] = await readPeriodTotalsOfMany(analytics, { ...question, periods: [question] });
  assert(reading !== undefined, "one period, one reading");
  return reading;
}

/**
 * Totals of many periods, in their order, with one statement for each meter and some thousand customers. A period that cannot be
 * read is refused on its own.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readPeriodTotalsOfMany(
  analytics: AnalyticsStore,
  question: TotalsContext & { readonly periods: readonly CountedPeriod[] },
): Promise<readonly PeriodReading[]> {
  const drafts = question.periods.map(() => new Draft());
  for (const family of familiesOf(question, drafts))
    for (const uses of chunksOf(family.uses)) await readChunk(analytics, question, { ...family, uses });
  return question.periods.map(({ items }, index) => readingOf(items, drafts[index] ?? new Draft()));
}

/** What is known of one period so far. */
class Draft {
  readonly totals = new Map<string, Quantity>();
  readonly missing: string[] = [];
  readonly refused = new Map<string, Refusal>();
}

/** Items of one period that one statement answers. */
interface Use {
  readonly span: CustomerSpan;
  readonly items: readonly CountedItem[];
  readonly draft: Draft;
}

/** Everything that one kind of statement answers: one meter version, grouped by the dimensions that its items look at. */
interface Family {
  readonly definition: MeterDefinition;
  readonly groupBy: readonly string[];
  /** The values that any of the items names. */
  readonly where: Map<string, Set<string>>;
  readonly uses: readonly Use[];
}

type GrowingFamily = Family & { readonly uses: Use[] };

/**
 * Items of an additive meter that look at the same dimensions share a statement and are told apart by its groups. What does not add
 * up (max, unique_count, …) has one for each filter.
 */
function familiesOf(
  question: TotalsContext & { readonly periods: readonly CountedPeriod[] },
  drafts: readonly Draft[],
): GrowingFamily[] {
  const definitions = new Map(question.definitions.map((one) => [nameOf(one.version.meter, one.version.version), one]));
  const families = new Map<string, GrowingFamily>();
  for (const [index, { customer, startAt, endAt, items }] of question.periods.entries()) {
    const draft = drafts[index];
    assert(draft !== undefined && startAt < endAt, "a draft for each period");
    const byFamily = new Map<string, CountedItem[]>();
    for (const item of items) {
      const definition = definitions.get(nameOf(item.meter, item.meterVersion));
      if (definition === undefined || !isKnown(definition, question.cutAt)) {
        draft.missing.push(item.key);
        continue;
      }
      const key = addToFamily(families, definition, item);
      const known = byFamily.get(key);
      if (known === undefined) byFamily.set(key, [item]);
      else known.push(item);
    }
    for (const [key, members] of byFamily)
      families.get(key)?.uses.push({ span: { customer, fromAt: startAt, toAt: endAt }, items: members, draft });
  }
  return [...families.values()];
}

function addToFamily(families: Map<string, GrowingFamily>, definition: MeterDefinition, item: CountedItem): string {
  const names = Object.keys(item.where).sort();
  const isShared = isAdditive(definition);
  const filter = isShared ? names : names.map((name) => [name, [...(item.where[name] ?? [])].sort()]);
  const key = JSON.stringify([nameOf(item.meter, item.meterVersion), filter]);
  const family = families.get(key) ?? { definition, groupBy: isShared ? names : [], where: new Map(), uses: [] };
  families.set(key, family);
  for (const name of names) {
    const values = family.where.get(name) ?? new Set<string>();
    family.where.set(name, values);
    for (const value of item.where[name] ?? []) values.add(value);
  }
  return key;
}

function nameOf(meter: string, version: number): string {
  return `${meter}@${version}`;
}

function isAdditive({ version }: MeterDefinition): boolean {
  return version.rule.aggregation === "sum" || version.rule.aggregation === "count";
}

/** A version that was activated behind the cut is none as known at it. */
function isKnown({ activatedAts }: MeterDefinition, cutAt: number | null): boolean {
  return activatedAts.some((bookedAt) => cutAt === null || bookedAt < cutAt);
}

/** Parts within the bytes of one statement; a customer with several periods is in several, because one has each once. */
function* chunksOf(uses: readonly Use[]): Generator<readonly Use[]> {
  let rest = uses;
  while (rest.length > 0) {
    const [chunk, left]: [Use[], Use[]] = [[], []];
    const customers = new Set<string>();
    let bytes = 0;
    for (const use of rest) {
      const { customer } = use.span;
      const room = customerBytes(customer);
      if (customers.has(customer) || (chunk.length > 0 && bytes + room > CUSTOMERS_BYTES_MAX)) {
        left.push(use);
        continue;
      }
      customers.add(customer);
      bytes += room;
      chunk.push(use);
    }
    yield chunk;
    rest = left;
  }
}

/** A refused statement is asked again in halves, so that one customer's refusal is nobody else's. */
async function readChunk(analytics: AnalyticsStore, context: TotalsContext, family: Family): Promise<void> {
  const { mode, cutAt, watermarkAt } = context;
  const { definition, groupBy, uses } = family;
  const where = Object.fromEntries([...family.where].map(([name, values]) => [name, [...values]]));
  const spans = uses.map(({ span }) => span);
  const reading = await readTotalsOfMany(analytics, {
    mode,
    cutAt,
    watermarkAt,
    definition,
    spans,
    groupBy,
    where,
    rowsMax: ROWS_MAX,
    eventsMax: EVENTS_MAX,
  });
  if (reading.kind === "groups") {
    const byCustomer = new Map(uses.map((use) => [use.span.customer, use]));
    for (const { customer, group, quantity } of reading.groups)
      addGroup(byCustomer.get(customer), family, { group, quantity });
    return;
  }
  const [only] = uses;
  if (uses.length === 1 && only !== undefined) {
    for (const { key } of only.items) only.draft.refused.set(key, reading.refusal);
    return;
  }
  const half = Math.ceil(uses.length / 2);
  for (const part of [uses.slice(0, half), uses.slice(half)])
    await readChunk(analytics, context, { ...family, uses: part });
}

/** Adds a group to every item that it matches. Of what does not add up, there is one group. */
function addGroup(
  use: Use | undefined,
  { definition, groupBy }: Family,
  { group, quantity }: { readonly group: readonly string[]; readonly quantity: Quantity },
): void {
  assert(use !== undefined, "only customers that were asked for");
  for (const { key, where } of use.items) {
    if (!groupBy.every((name, index) => where[name]?.includes(group[index] ?? "") === true)) continue;
    const known = use.draft.totals.get(key);
    assert(known === undefined || isAdditive(definition), "only sums and counts add up");
    use.draft.totals.set(key, quantityFromScaled((known ?? 0n) + quantity));
  }
}

function readingOf(items: readonly CountedItem[], { totals, missing, refused }: Draft): PeriodReading {
  const [refusal] = refused.values();
  if (refusal !== undefined) return { kind: "refused", items: [...refused.keys()], refusal };
  return {
    kind: "totals",
    totals: items.map(({ key }) => ({ item: key, quantity: totals.get(key) ?? ZERO_QUANTITY })),
    missing,
  };
}
