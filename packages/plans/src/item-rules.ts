/** What the fields of one item mean to each other. Pure. */
import { type FieldIssue, type FieldPath, unreachable } from "@tallyhouse/domain";
import type { Price, Tier } from "@tallyhouse/pricing";
import type { ItemParts } from "./plan-parts.ts";

/** Every broken rule, each with the path below the item. */
export function itemIssues(item: ItemParts): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const add = (field: string, rule: string): void => void issues.push({ path: [field], rule });
  const { policy, included, cap, price, to, throttle } = item;
  if (typeof cap === "string" && typeof included === "string" && BigInt(cap) < BigInt(included))
    add("cap", `is ${cap}, less than the included ${included}`);
  if (policy === "overage" && price === undefined) add("price", "is required for the policy overage");
  if (policy && policy !== "overage" && included === undefined) add("included", `is required for the policy ${policy}`);
  if (policy === "block" || policy === "throttle") {
    if (price !== undefined) add("price", `is not for the policy ${policy}, which never charges`);
    if (cap !== undefined)
      add("cap", `is not for the policy ${policy}: ${policy === "block" ? "included is its cap" : "it has none"}`);
  }
  if (policy === "auto_upgrade" && to === undefined) add("to", "is required for the policy auto_upgrade");
  if (policy && policy !== "auto_upgrade" && to !== undefined) add("to", "is only for the policy auto_upgrade");
  if (policy === "throttle" && throttle === undefined) add("throttle", "is required for the policy throttle");
  if (policy && policy !== "throttle" && throttle !== undefined) add("throttle", "is only for the policy throttle");
  const isIncluding = typeof included === "string" && included !== "0";
  if (isIncluding && (price?.model === "volume" || price?.model === "package"))
    add("included", `is not for a ${price.model} price: once exceeded, the included units would be charged too`);
  if (price) for (const issue of priceIssues(price)) issues.push({ ...issue, path: ["price", ...issue.path] });
  return issues;
}

function priceIssues(price: Price): FieldIssue[] {
  switch (price.model) {
    case "per_unit":
    case "package":
      return [];
    case "graduated":
    case "volume":
      return tierIssues(price.tiers);
    default:
      return unreachable(price);
  }
}

/** Tiers rise, and the last one, and it alone, is up to inf. */
function tierIssues(tiers: readonly Tier[]): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const add = (path: FieldPath, rule: string): void => void issues.push({ path: ["tiers", ...path], rule });
  let before = 0n;
  for (const [index, { upTo }] of tiers.entries()) {
    const isLast = index === tiers.length - 1;
    if (upTo === "inf") {
      if (!isLast) add([index, "upTo"], "is inf before the last tier");
      continue;
    }
    if (BigInt(upTo) <= before) add([index, "upTo"], `is ${upTo}, not above the ${before} before it: tiers rise`);
    before = BigInt(upTo);
    if (isLast) add([index, "upTo"], "the last tier is up to inf");
  }
  return issues;
}
