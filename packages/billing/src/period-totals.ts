/** Totals of a period's items at a cut. */
import { type AnalyticsStore, assert, type Mode, quantityFromScaled, ZERO_QUANTITY } from "@tallyhouse/domain";
import type { ItemTotal, RatedItem } from "@tallyhouse/pricing";
import { type MeterDefinition, readUsageGroups, type Refusal, UTC } from "@tallyhouse/usage";

/** Totals, one per item. */
export async function readPeriodTotals(
  analytics: AnalyticsStore,
  question: {
    readonly mode: Mode;
    readonly customer: string;
    readonly startAt: number;
    readonly endAt: number;
    readonly items: readonly RatedItem[];
    readonly cutAt: number | null;
    readonly watermarkAt: number | null;
    readonly definitions: readonly MeterDefinition[];
  },
): Promise<
  | { readonly kind: "totals"; readonly totals: readonly ItemTotal[] }
  | { readonly kind: "refused"; readonly items: readonly string[]; readonly refusal: Refusal }
> {
  const totals: ItemTotal[] = [];
  for (const item of question.items) {
    const definition = question.definitions.find(
      ({ version }) => version.meter === item.meter && version.version === item.meterVersion,
    );
    assert(definition !== undefined, "known");
    const groupBy = Object.keys(item.where);
    const reading = await readUsageGroups(analytics, {
      ...question,
      definition,
      groupBy,
      fromAt: question.startAt,
      toAt: question.endAt,
      window: "total",
      zone: UTC,
      rowsMax: 100_000,
      eventsMax: 20_000_000,
    });
    if (reading.kind === "refused") return { kind: "refused", items: [item.key], refusal: reading.refusal };
    const wanted = reading.groups.filter(({ group }) =>
      group.every((value, index) => item.where[groupBy[index] ?? ""]?.includes(value) ?? false),
    );
    const sum = wanted.reduce((all, { quantity }) => all + quantity, 0n);
    totals.push({ item: item.key, quantity: wanted.length === 0 ? ZERO_QUANTITY : quantityFromScaled(sum) });
  }
  return { kind: "totals", totals };
}
