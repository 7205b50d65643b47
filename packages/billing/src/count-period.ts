/** Counts a period for a statement: every item's total at a cut, twice, and the digest of the usage events behind it. */
import { type AnalyticsStore, type Mode, type Quantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import type { RatedItem, RatedPlan } from "@tallyhouse/pricing";
import {
  hasRawEvents,
  isBackfilling,
  type MeterDefinition,
  quantityOfDecimal,
  Tally,
  walkCountedEvents,
  type WalkedEvent,
  type WalkedPart,
} from "@tallyhouse/usage";
import type { ItemCount } from "./build-statement.ts";
import { compileItemOf, EventsDigest, eventTuple } from "./event-digest.ts";
import { readPeriodTotals } from "./period-totals.ts";
import type { StatementRule } from "./statement.ts";

/** How far usage is stored, and by which rules it is counted: the watermark first, the definitions read after it. */
export interface SealedUsage {
  readonly watermarkAt: number;
  readonly definitions: readonly MeterDefinition[];
}

/** Which period of whom, by which items, as known at which cut. */
export interface PeriodQuestion {
  readonly mode: Mode;
  readonly customer: string;
  readonly period: { readonly startAt: number; readonly endAt: number };
  readonly cutAt: number;
  readonly plan: RatedPlan;
}

/**
 * `open`: the cut may not be read yet. `refused`: `expired` when retention removed usage events, `unknown_meter` when a meter version
 * of the plan was activated nowhere, `limits` when the totals are too large to read, `differs` when the rollups and the usage events
 * say two things: no bill is made of such figures.
 */
export type PeriodCount =
  | { readonly kind: "counted"; readonly items: readonly ItemCount[]; readonly rules: readonly StatementRule[] }
  | { readonly kind: "open"; readonly reason: "watermark" | "backfill" }
  | {
      readonly kind: "refused";
      readonly reason: "expired" | "unknown_meter" | "limits" | "differs";
      readonly detail: string;
    };

/**
 * Totals of every item as known at the cut. Once counted, the same for ever, as long as raw usage events are kept.
 *
 * Two roads lead to a total: the one of every figure that is shown (windows and edges), and the usage events one by one, which the
 * digest needs anyhow. A statement is made only where they meet.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function countPeriod(
  analytics: AnalyticsStore,
  sealed: SealedUsage,
  question: PeriodQuestion,
): Promise<PeriodCount> {
  const { period, cutAt, plan } = question;
  if (sealed.watermarkAt < cutAt) return { kind: "open", reason: "watermark" };
  const chosen = chooseDefinitions(plan.items, sealed.definitions);
  if (chosen.kind === "refused") return chosen;
  const { definitions } = chosen;
  if (definitions.some((definition) => isBackfilling(definition, cutAt))) return { kind: "open", reason: "backfill" };
  if (!hasRawEvents(period.startAt, sealed.watermarkAt))
    return refused("expired", "usage events of the period are older than what is kept");
  const totals = await readPeriodTotals(analytics, {
    ...question,
    ...period,
    items: plan.items,
    definitions,
    watermarkAt: sealed.watermarkAt,
  });
  if (totals.kind === "refused") return refused("limits", `items ${totals.items.join(", ")}: ${totals.refusal.kind}`);
  const folds = await foldItems(analytics, question, definitions);
  const items: ItemCount[] = [];
  for (const { item, quantity } of totals.totals) {
    const fold = folds.get(item);
    const folded = fold?.quantity ?? ZERO_QUANTITY;
    if (fold === undefined || folded !== quantity)
      return refused("differs", `item ${item}: the windows say ${quantity}, the usage events ${folded} (10^-9)`);
    items.push({ item, quantity, events: fold.digest.count, eventsDigest: fold.digest.hex() });
  }
  return { kind: "counted", items, rules: rulesOf(definitions) };
}

function refused(reason: Extract<PeriodCount, { kind: "refused" }>["reason"], detail: string): PeriodCount {
  return { kind: "refused", reason, detail };
}

/** The meter versions of the items, each once, in order of meter and version. */
function chooseDefinitions(
  items: readonly RatedItem[],
  all: readonly MeterDefinition[],
): { readonly kind: "chosen"; readonly definitions: readonly MeterDefinition[] } | (PeriodCount & { kind: "refused" }) {
  const isWanted = ({ version }: MeterDefinition): boolean =>
    items.some((item) => item.meter === version.meter && item.meterVersion === version.version);
  const definitions = all.filter(isWanted);
  const missing = items.find(
    (item) => !definitions.some(({ version }) => item.meter === version.meter && item.meterVersion === version.version),
  );
  return missing === undefined
    ? { kind: "chosen", definitions }
    : { kind: "refused", reason: "unknown_meter", detail: `${missing.meter}@${missing.meterVersion}` };
}

function rulesOf(definitions: readonly MeterDefinition[]): StatementRule[] {
  return definitions.map(({ version: { meter, version, rule } }) => ({
    meter,
    version,
    aggregation: rule.aggregation,
    dimensions: Object.keys(rule.dimensions),
  }));
}

/** What the usage events of one item add up to. */
class ItemFold {
  readonly digest = new EventsDigest();
  readonly #tally: Tally;
  readonly #isUnique: boolean;

  constructor({ version: { rule } }: MeterDefinition) {
    this.#tally = new Tally(rule.aggregation);
    this.#isUnique = rule.aggregation === "unique_count";
  }

  get quantity(): Quantity {
    return this.digest.count === 0 ? ZERO_QUANTITY : this.#tally.quantity;
  }

  add(event: WalkedEvent, part: WalkedPart): void {
    const quantity = this.#isUnique ? ZERO_QUANTITY : quantityOfDecimal(part.value);
    // A walk goes from the oldest to the newest, so its own count is the order of `latest`.
    this.#tally.add({ quantity, newest: [BigInt(this.digest.count)], hash: this.#isUnique ? part.value : null });
    this.digest.add(eventTuple(event, part));
  }
}

/** One walk per event type serves all its meters. */
async function foldItems(
  analytics: AnalyticsStore,
  { mode, customer, period, cutAt, plan }: PeriodQuestion,
  definitions: readonly MeterDefinition[],
): Promise<ReadonlyMap<string, ItemFold>> {
  const folds = new Map<string, ItemFold>();
  const items = plan.items.flatMap((item) => {
    const definition = definitions.find(
      ({ version }) => version.meter === item.meter && version.version === item.meterVersion,
    );
    if (definition === undefined) return [];
    folds.set(item.key, new ItemFold(definition));
    return { ...item, dimensions: Object.keys(definition.version.rule.dimensions) };
  });
  const itemOf = compileItemOf(items);
  const byType = Map.groupBy(definitions, ({ version }) => version.rule.eventType);
  for (const ofType of byType.values()) {
    const walk = { mode, customer, definitions: ofType, fromAt: period.startAt, toAt: period.endAt, cutAt };
    for await (const page of walkCountedEvents(analytics, walk)) {
      const parts = page.flatMap((event) => event.parts.map((part) => ({ event, part })));
      for (const { event, part } of parts) folds.get(itemOf(part)?.key ?? "")?.add(event, part);
    }
  }
  return folds;
}
