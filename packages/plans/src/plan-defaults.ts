/** What a plan is where neither it nor the file's defaults say otherwise. */
import type { DecimalText } from "@tallyhouse/pricing";
import type { Plan, PlanItem } from "./plan.ts";
import type { DeclaredPlan } from "./plan-schema.ts";

/** Every endpoint. */
export const DEFAULT_ALLOW: readonly string[] = ["* /**"];
/** Percent of what is included. */
const DEFAULT_ALERTS: readonly number[] = [80, 100, 120];

/** Fields that `defaults` of a file may give. */
export type PlanDefaults = Partial<
  Pick<DeclaredPlan, "currency" | "interval" | "alerts" | "latePolicy" | "allow" | "deny">
>;

/** The plan with everything filled in. The currency is required by the rules before this. */
export function planOf(key: string, declared: DeclaredPlan, defaults: PlanDefaults): Plan {
  const { items } = declared;
  return {
    key,
    currency: declared.currency ?? defaults.currency ?? "",
    interval: declared.interval ?? defaults.interval ?? "month",
    price: declared.price,
    billing: declared.billing ?? "stripe",
    alerts: declared.alerts ?? defaults.alerts ?? DEFAULT_ALERTS,
    latePolicy: declared.latePolicy ?? defaults.latePolicy ?? "carry_forward",
    allow: declared.allow ?? defaults.allow ?? DEFAULT_ALLOW,
    deny: declared.deny ?? defaults.deny ?? [],
    limits: declared.limits ?? {},
    items:
      items === "custom"
        ? items
        : Object.fromEntries(Object.entries(items).map(([itemKey, item]) => [itemKey, itemOf(item)])),
    features: declared.features,
    support: declared.support ?? null,
    sla: declared.sla ?? null,
    dunning: declared.dunning ?? null,
  };
}

function itemOf(item: Exclude<DeclaredPlan["items"], "custom">[string]): PlanItem {
  const { meter, where, policy } = item;
  const text = (value: DecimalText | undefined): DecimalText | null => value ?? null;
  return {
    meter,
    where,
    included: text(item.included),
    policy,
    cap: text(item.cap),
    price: item.price ?? null,
    to: text(item.to),
    throttle: item.throttle ?? null,
  };
}
