/** What the fields of a plan mean to each other: every refusal that can be seen without the meters. Pure. */
import type { FieldIssue, FieldPath } from "@tallyhouse/domain";
import { itemIssues } from "./item-rules.ts";
import { covers, meet } from "./patterns.ts";
import type { EndpointParts, ItemParts, LimitsParts, PlanParts } from "./plan-parts.ts";
import { tooManyDecimals } from "./plan-schema.ts";

/** Stripe's subscriptions take 20 items, and the fee is one. */
const PRICED_ITEMS_MAX = 19;
/** The token bucket counts in 1/60,000 of a request. */
const BUCKET_SCALE = 60_000;
const SAFE_LIMIT = 2 ** 53;
const STRICT_LIMIT = 2 ** 32;
const BURST_MIN = 5;
const BURST_SHARE = 10;

/** What a plan is judged beside. */
export interface RuleContext {
  readonly endpoints: readonly EndpointParts[];
  /** Every plan that `to` may name; null: nobody knows, so `to` is not judged. */
  readonly plans: ReadonlyMap<string, PlanParts> | null;
}

/** Every broken rule, each with the path below the plan. */
export function planIssues(plan: PlanParts, context: RuleContext): FieldIssue[] {
  return [
    ...moneyIssues(plan),
    ...(plan.limits === "custom" ? [] : limitsIssues(plan, plan.limits, context.endpoints)),
    ...(plan.items === "custom" ? [] : itemsIssues(plan, plan.items, context.plans)),
  ];
}

function moneyIssues({ price, currency }: PlanParts): FieldIssue[] {
  if (currency === undefined) return [{ path: ["currency"], rule: "is required here or in defaults" }];
  const rule = typeof price === "string" && currency !== null ? tooManyDecimals(price, currency) : null;
  return rule === null ? [] : [{ path: ["price"], rule }];
}

function itemsIssues(
  plan: PlanParts,
  items: ReadonlyMap<string, ItemParts>,
  plans: RuleContext["plans"],
): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const add = (path: FieldPath, rule: string): void => void issues.push({ path: ["items", ...path], rule });
  if (items.has("fee")) add(["fee"], "no item is called fee: that is the line of the plan's price");
  const priced = [...items.values()].filter(({ price }) => price !== undefined).length;
  if (priced > PRICED_ITEMS_MAX)
    add([], `has ${priced} items with a price; a subscription takes at most ${PRICED_ITEMS_MAX} beside the fee`);
  for (const [key, item] of items) {
    for (const { path, rule } of itemIssues(item)) add([key, ...path], rule);
    for (const rule of targetIssues(plan, { key, item }, plans)) add([key, "to"], rule);
  }
  for (const [later, [key, item]] of [...items].entries()) {
    const other = [...items].slice(0, later).find(([, before]) => overlap(before, item));
    if (other === undefined) continue;
    const isSame = JSON.stringify(entriesOf(other[1])) === JSON.stringify(entriesOf(item));
    const rule = isSame
      ? `counts the same usage as "${other[0]}": two items of one meter need different where`
      : `overlaps "${other[0]}": usage of one meter would count in both; narrow where so that they share none`;
    add([key, isSame ? "meter" : "where"], rule);
  }
  return issues;
}

function entriesOf({ where }: ItemParts): [string, readonly string[]][] {
  return Object.entries(where ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Apart only where one dimension has no value in common. What cannot be read overlaps nothing. */
function overlap(a: ItemParts, b: ItemParts): boolean {
  if (typeof a.meter !== "string" || a.meter !== b.meter || a.where === null || b.where === null) return false;
  const others = new Map(Object.entries(b.where ?? {}));
  return Object.entries(a.where ?? {}).every(([dimension, values]) => {
    const theirs = others.get(dimension);
    return theirs === undefined || values.some((value) => theirs.includes(value));
  });
}

/** The plan of an automatic upgrade takes the customer's usage on: same currency, and at least as much included. */
function targetIssues(
  plan: PlanParts,
  { key, item }: { readonly key: string; readonly item: ItemParts },
  plans: RuleContext["plans"],
): string[] {
  if (plans === null || typeof item.to !== "string" || item.policy !== "auto_upgrade") return [];
  if (item.to === plan.key) return ["is this plan itself"];
  const target = plans.get(item.to);
  if (target === undefined) return [`there is no plan "${item.to}"`];
  if (target.items === "custom" || target.price === "custom" || target.limits === "custom")
    return [`"${item.to}" has custom fields, which only a contract sets`];
  const rules: string[] = [];
  if (typeof plan.currency === "string" && typeof target.currency === "string" && plan.currency !== target.currency)
    rules.push(`"${item.to}" is in ${target.currency}, this plan in ${plan.currency}`);
  const there = target.items.get(key) ?? [...target.items.values()].find((each) => each.meter === item.meter);
  if (there === undefined || there.meter !== item.meter) rules.push(`"${item.to}" has no item of this meter`);
  else if (there.included !== null && typeof item.included === "string") {
    const included = there.included ?? "0";
    if (BigInt(included) < BigInt(item.included))
      rules.push(`"${item.to}" includes ${included}, less than the ${item.included} of this plan`);
  }
  return rules;
}

function limitsIssues(plan: PlanParts, limits: LimitsParts, endpoints: readonly EndpointParts[]): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const allowed = allowedEndpoints(plan, endpoints);
  const costMax = Math.max(1, ...allowed.map(({ cost }) => cost));
  const judge = (limit: { limit: number; burst?: number | undefined; kind?: string | undefined }, path: FieldPath) => {
    const add = (field: string, rule: string): void => void issues.push({ path: ["limits", ...path, field], rule });
    const isStrict = limit.kind === "strict";
    const room = isStrict ? limit.limit : burstOf(limit, costMax);
    const field = isStrict ? "limit" : "burst";
    const dearest = allowed.find(({ cost }) => cost > room);
    if (dearest !== undefined)
      add(field, `is ${room}, and an allowed endpoint costs more: "${dearest.match}" costs ${dearest.cost}`);
    if (isStrict && limit.limit >= STRICT_LIMIT) add("limit", "of a strict limit must be below 2^32");
    if (!isStrict && room * BUCKET_SCALE >= SAFE_LIMIT)
      add(limit.burst === undefined ? "limit" : "burst", `burst ${room} × 60,000 must be below 2^53`);
  };
  if (limits.minute) judge(limits.minute, ["minute"]);
  if (limits.perKey?.minute) judge(limits.perKey.minute, ["perKey", "minute"]);
  return issues;
}

/** The burst of a minute limit that names none: 5, a tenth of the limit, or the dearest allowed endpoint. */
export function burstOf(
  limit: { readonly limit: number; readonly burst?: number | undefined },
  costMax: number,
): number {
  return limit.burst ?? Math.max(BURST_MIN, Math.floor(limit.limit / BURST_SHARE), costMax);
}

/** Endpoints that some allowed request meets first: allowed, not denied, not behind an earlier entry. */
function allowedEndpoints(plan: PlanParts, endpoints: readonly EndpointParts[]): readonly EndpointParts[] {
  return endpoints.filter(({ match }, index) => {
    const before = endpoints.slice(0, index).map((endpoint) => endpoint.match);
    return plan.allow.some((pattern) => {
      const both = meet(pattern, match);
      return both !== null && ![...plan.deny, ...before].some((outer) => covers(outer, both));
    });
  });
}
