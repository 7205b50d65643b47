/** The projected invoice: three usages of the period, rated by the function that makes the statement. */
import { type AnalyticsStore, assert, type Mode, parseInstant, type Quantity } from "@tallyhouse/domain";
import { type Bill, type RatedItem, rateBill } from "@tallyhouse/pricing";
import type { MeterDefinition, Refusal, Zone } from "@tallyhouse/usage";
import { localDayOf, readDailyUsage } from "./daily-usage.ts";
import { HISTORY_WEEKS, type ItemSoFar, type Projection, projectItem, type RestDay } from "./projection.ts";
import type { RunningBill } from "./running-bill.ts";

/** Each item's estimate, in the order of the plan, and the bills of the three usages. */
export interface ProjectedBill {
  readonly items: readonly (Projection & { readonly item: string; readonly used: Quantity })[];
  readonly low: Bill;
  readonly likely: Bill;
  readonly high: Bill;
}

/** The estimate, or which item's usage cannot be read. */
export type ProjectionReading =
  | { readonly kind: "projection"; readonly projection: ProjectedBill }
  | { readonly kind: "refused"; readonly items: readonly string[]; readonly refusal: Refusal };

/**
 * Estimates the bill of the running period. Time has elapsed as far as the watermark says, not the wall clock: usage behind it is not
 * all there, and would make the rate too small.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readProjection(
  analytics: AnalyticsStore,
  { running, zone, mode }: { readonly running: RunningBill; readonly zone: Zone; readonly mode: Mode },
): Promise<ProjectionReading> {
  const { period, rated, totals, watermarkAt } = running;
  const { startAt, endAt } = period;
  const asOfAt = Math.min(Math.max(watermarkAt ?? startAt, startAt), endAt);
  const time = { elapsedMs: asOfAt - startAt, remainingMs: endAt - asOfAt, rest: restDays(zone, asOfAt, endAt) };
  const items: (Projection & { item: string; used: Quantity })[] = [];
  for (const [index, item] of rated.items.entries()) {
    const counted = totals[index]?.quantity;
    assert(counted !== undefined, "a total for each item");
    const definition = definitionOf(running, item);
    const aggregation = definition?.version.rule.aggregation ?? "sum";
    let days: ItemSoFar["days"] = [];
    if (definition !== null && (aggregation === "sum" || aggregation === "count")) {
      const reading = await readDailyUsage(analytics, {
        mode,
        customer: running.customer.customer,
        definition,
        where: item.where,
        zone,
        watermarkAt,
        ...historyOf(running, { definition, zone, asOfAt }),
      });
      if (reading.kind === "refused") return { kind: "refused", items: [item.key], refusal: reading.refusal };
      days = reading.days.map(({ quantity }) => quantity);
    }
    items.push({ item: item.key, used: counted, ...projectItem({ aggregation, counted, days, ...time }) });
  }
  const billOf = (which: "low" | "likely" | "high"): Bill =>
    rateBill(
      rated,
      items.map(({ item, [which]: quantity }) => ({ item, quantity })),
      { startAt, endAt },
    );
  return {
    kind: "projection",
    projection: { items, low: billOf("low"), likely: billOf("likely"), high: billOf("high") },
  };
}

function definitionOf({ definitions }: RunningBill, { meter, meterVersion }: RatedItem): MeterDefinition | null {
  return definitions.find(({ version }) => version.meter === meter && version.version === meterVersion) ?? null;
}

/** Today's rest, then the days after it, the last one up to the end. */
function restDays(zone: Zone, fromAt: number, toAt: number): RestDay[] {
  const days: RestDay[] = [];
  for (let at = fromAt; at < toAt;) {
    const day = localDayOf(zone, at);
    const endAt = Math.min(day.endAt, toAt);
    days.push({ partMs: endAt - at, dayMs: day.endAt - day.startAt });
    at = endAt;
  }
  return days;
}

/**
 * The whole local days before today that say something about the customer: at most four weeks, none before it had a plan or the meter
 * counted, for zeros of that time are no usage.
 */
function historyOf(
  { customer }: RunningBill,
  input: { readonly definition: MeterDefinition; readonly zone: Zone; readonly asOfAt: number },
): { readonly fromAt: number; readonly toAt: number } {
  const { definition, zone, asOfAt } = input;
  const toAt = localDayOf(zone, asOfAt).startAt;
  const [first] = customer.history.assignments;
  const beginsAt = Math.max(first?.effectiveAt ?? asOfAt, parseInstant(definition.version.rule.from) ?? 0);
  let fromAt = toAt;
  for (let days = 0; days < HISTORY_WEEKS.max * 7; days += 1) {
    const day = localDayOf(zone, fromAt - 1);
    if (day.startAt < beginsAt) break;
    fromAt = day.startAt;
  }
  return { fromAt, toAt };
}
