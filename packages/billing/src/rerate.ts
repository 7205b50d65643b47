/** One past period under the plan it had and under another one. Pure. */
import { applyContract, type BillingPeriod, type Plan, ratedPlanOf } from "@tallyhouse/plans";
import { type ItemTotal, minorOfAmount, type RatedItem, type RatedPlan, rateBill } from "@tallyhouse/pricing";
import { assert, type Quantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import type { CountedItem } from "./period-totals.ts";

/** A plan of the file under trial, and the versions that the meters of its items have now. */
export interface TrialPlan {
  readonly plan: Plan;
  readonly meterVersions: Readonly<Record<string, number>>;
}

/** Plans under trial by key, and which plan's customers move to which of them. A plan in neither stays as it is. */
export interface Trial {
  readonly plans: ReadonlyMap<string, TrialPlan>;
  readonly moves: ReadonlyMap<string, string>;
}

/** Why a period has no two bills that can be compared. */
export type SkipReason = "currency" | "interval" | "contract" | "custom";

/** The two plans that rate a period. */
export type PlanPair =
  | { readonly kind: "pair"; readonly before: RatedPlan; readonly after: RatedPlan; readonly planAfter: string }
  | { readonly kind: "skipped"; readonly reason: SkipReason; readonly planAfter: string };

/**
 * The plan that rated the period, and the one under trial. The customer's contract goes on over a plan of the same key, and over no
 * other. Meters keep the version that they had in the period: prices are compared, not meters.
 */
export function pairOf({ version, contract, plan }: BillingPeriod, trial: Trial): PlanPair {
  const before = ratedPlanOf(version, contract);
  const planAfter = trial.moves.get(version.key) ?? version.key;
  const found = trial.plans.get(planAfter);
  if (found === undefined) return { kind: "pair", before, after: before, planAfter: version.key };
  const kept = planAfter === version.key ? contract : null;
  const reading = kept === null ? null : applyContract(found.plan, kept.overrides);
  if (reading?.kind === "problems") return { kind: "skipped", reason: "contract", planAfter };
  const tried = reading?.plan ?? found.plan;
  if (tried.price === "custom" || tried.items === "custom") return { kind: "skipped", reason: "custom", planAfter };
  if (tried.currency !== plan.currency) return { kind: "skipped", reason: "currency", planAfter };
  if (tried.interval !== plan.interval) return { kind: "skipped", reason: "interval", planAfter };
  const meterVersions = { ...found.meterVersions, ...kept?.meterVersions, ...version.meterVersions };
  const items = Object.entries(tried.items).map(([key, { meter, where, included, price }]): RatedItem => {
    const meterVersion = meterVersions[meter];
    assert(meterVersion !== undefined, `the meter ${meter} of plan ${planAfter} has no version`);
    return { key, meter, meterVersion, where, included, price };
  });
  return {
    kind: "pair",
    before,
    after: { plan: planAfter, currency: plan.currency, fee: tried.price, items },
    planAfter,
  };
}

/** Names what is counted for an item: items of both plans that count the same thing are read once. */
export function feedOf({ meter, meterVersion, where }: CountedItem): string {
  const values = Object.entries(where).map(([name, list]) => [name, [...list].sort()]);
  return JSON.stringify([meter, meterVersion, values.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1))]);
}

/** What has to be counted for both plans, each thing once; the key of an item is its {@link feedOf}. */
export function feedsOf({ before, after }: Extract<PlanPair, { kind: "pair" }>): CountedItem[] {
  const feeds = new Map<string, CountedItem>();
  for (const item of [...before.items, ...after.items]) {
    const key = feedOf(item);
    feeds.set(key, { key, meter: item.meter, meterVersion: item.meterVersion, where: item.where });
  }
  return [...feeds.values()];
}

/** Both bills' totals in minor units. */
export function rerate(
  { before, after }: Extract<PlanPair, { kind: "pair" }>,
  period: { readonly startAt: number; readonly endAt: number },
  quantities: ReadonlyMap<string, Quantity>,
): { readonly before: bigint; readonly after: bigint } {
  const minorOf = (plan: RatedPlan): bigint => {
    const totals = plan.items.map((item): ItemTotal => ({ item: item.key, quantity: quantityOf(quantities, item) }));
    return minorOfAmount(rateBill(plan, totals, period).total, plan.currency);
  };
  const was = minorOf(before);
  return { before: was, after: after === before ? was : minorOf(after) };
}

function quantityOf(quantities: ReadonlyMap<string, Quantity>, item: RatedItem): Quantity {
  return quantities.get(feedOf(item)) ?? ZERO_QUANTITY;
}
