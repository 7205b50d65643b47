/** Contracts: one customer's own version of a plan. Pure. */
import { type FieldIssue, isJsonObject, issuesOf, type JsonObject } from "@tallyhouse/domain";
import type { EndpointRule, Plan } from "./plan.ts";
import { planOf } from "./plan-defaults.ts";
import { planPartsOf } from "./plan-parts.ts";
import { planIssues } from "./plan-rules.ts";
import { type DeclaredPlan, DeclaredPlanSchema } from "./plan-schema.ts";

/** The plan that a contract makes, whole and valid; or every wrong field of it. */
export type ContractReading =
  | { readonly kind: "plan"; readonly plan: Plan }
  | { readonly kind: "problems"; readonly issues: readonly FieldIssue[] };

/** What the result is judged beside; without it, rules about other plans and endpoints are not judged. */
export interface ContractContext {
  readonly endpoints?: readonly EndpointRule[];
  readonly plans?: readonly Plan[];
}

/**
 * The plan with one customer's overrides, in the words of a plans file: objects merge at any depth, null removes a field (its default
 * holds then) or an item, everything else replaces. A price that names its `model` replaces the whole price. The result obeys every
 * rule of a plan, and nothing of it may be left `custom`.
 */
export function applyContract(
  plan: Plan,
  overrides: Readonly<Record<string, unknown>>,
  context: ContractContext = {},
): ContractReading {
  const merged = merge(declaredOf(plan), overrides);
  const parsed = DeclaredPlanSchema.safeParse(merged);
  const plans =
    context.plans && new Map(context.plans.map((each) => [each.key, planPartsOf(each.key, declaredOf(each), {})]));
  const issues = [
    ...issuesOf(parsed.error),
    ...openFields(merged),
    ...(parsed.success ? changedMeters(plan, parsed.data.items) : []),
    ...planIssues(planPartsOf(plan.key, merged, {}), { endpoints: context.endpoints ?? [], plans: plans ?? null }),
  ];
  if (parsed.success && issues.length === 0) return { kind: "plan", plan: planOf(plan.key, parsed.data, {}) };
  return { kind: "problems", issues };
}

/** Fields that only a contract sets. */
function openFields(merged: JsonObject): FieldIssue[] {
  return ["price", "limits", "items"]
    .filter((name) => merged[name] === "custom")
    .map((name) => ({ path: [name], rule: "is custom in the plan: the contract must set it" }));
}

/** An item means one meter for every customer of the plan. */
function changedMeters(plan: Plan, items: DeclaredPlan["items"]): FieldIssue[] {
  if (plan.items === "custom" || items === "custom") return [];
  const before = new Map(Object.entries(plan.items));
  return Object.entries(items).flatMap(([key, { meter }]) => {
    const own = before.get(key)?.meter ?? meter;
    if (own === meter) return [];
    return [{ path: ["items", key, "meter"], rule: `is "${own}" in the plan; another meter is another item` }];
  });
}

/** A plan as a file would declare it: without what it does not have. */
export function declaredOf({ key: _key, ...plan }: Plan): JsonObject {
  const items =
    plan.items === "custom"
      ? plan.items
      : Object.fromEntries(Object.entries(plan.items).map(([key, item]) => [key, withoutNulls({ ...item })]));
  return withoutNulls({ ...plan, items });
}

function withoutNulls(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null && value !== undefined));
}

/** As RFC 7396 merges, but for prices: fields of two models never make one. */
function merge(base: JsonObject, overrides: JsonObject): JsonObject {
  const merged: Record<string, unknown> = { ...base };
  for (const [name, value] of Object.entries(overrides)) {
    const before = merged[name];
    if (value === null) delete merged[name];
    else if (!isJsonObject(value)) merged[name] = value;
    else if (name === "price" && "model" in value) merged[name] = value;
    else merged[name] = merge(isJsonObject(before) ? before : {}, value);
  }
  return merged;
}
