/** A bill is a function of a plan version and totals. */
import { assert, ZERO_QUANTITY } from "@tallyhouse/domain";
import type { Bill, BillLine, ItemTotal, RatedPlan } from "./bill.ts";
import { planDecimalOf, ZERO } from "./decimal.ts";
import { amountOfMinor, minorOfAmount } from "./money.ts";
import { rateFee, rateItem } from "./rate-item.ts";

/** The totals by item; every one names an item of the plan, once. */
function totalsByItem(plan: RatedPlan, totals: readonly ItemTotal[]): Map<string, ItemTotal> {
  const keys = new Set(plan.items.map(({ key }) => key));
  assert(keys.size === plan.items.length && !keys.has("fee"), `${plan.plan}: item keys are not unique, or one is fee`);
  const byItem = new Map<string, ItemTotal>();
  for (const total of totals) {
    assert(keys.has(total.item), `${plan.plan} has no item ${total.item}`);
    assert(!byItem.has(total.item), `two totals of ${total.item}`);
    byItem.set(total.item, total);
  }
  return byItem;
}

function linesOf(plan: RatedPlan, totals: readonly ItemTotal[]): BillLine[] {
  const byItem = totalsByItem(plan, totals);
  const items = plan.items.map((item) => {
    const total = byItem.get(item.key) ?? { item: item.key, quantity: ZERO_QUANTITY };
    return rateItem(item, total, plan.currency);
  });
  return planDecimalOf(plan.fee, "fee").eq(ZERO) ? items : [rateFee(plan.fee, plan.currency), ...items];
}

/**
 * Rates one period: the same plan and totals give the same bill, whatever the order of the totals. The running bill, the statement and
 * a what-if are this function.
 * @throws {InvariantError} for a plan that the plans file refuses, or totals that are not the plan's.
 */
export function rateBill(plan: RatedPlan, totals: readonly ItemTotal[], period: Bill["period"]): Bill {
  const lines = linesOf(plan, totals);
  let totalMinor = 0n;
  for (const { amount } of lines) totalMinor += minorOfAmount(amount, plan.currency);
  return {
    plan: plan.plan,
    currency: plan.currency,
    period,
    lines,
    total: amountOfMinor(totalMinor, plan.currency),
    totalMinor: totalMinor.toString(),
  };
}
