/** What the fields of one item mean to each other. Pure. */
import type { FieldIssue } from "@tallyhouse/domain";
import type { ItemParts } from "./plan-parts.ts";

/** Every broken rule, each with the path below the item. */
export function itemIssues(item: ItemParts): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const add = (field: string, rule: string): void => void issues.push({ path: [field], rule });
  const { policy, included, cap, price, model, to, throttle, tierEnds } = item;
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
  if (isIncluding && (model === "volume" || model === "package"))
    add("included", `is not for a ${model} price: once exceeded, the included units would be charged too`);
  return [...issues, ...tierIssues(tierEnds)];
}

/** Tiers rise, and the last one, and it alone, is up to inf. */
function tierIssues(ends: readonly (string | null)[]): FieldIssue[] {
  const issues: FieldIssue[] = [];
  let before = 0n;
  for (const [index, end] of ends.entries()) {
    const add = (rule: string): void => void issues.push({ path: ["price", "tiers", index, "upTo"], rule });
    const isLast = index === ends.length - 1;
    if (end === null) continue;
    if (end === "inf") {
      if (!isLast) add("is inf before the last tier");
      continue;
    }
    if (BigInt(end) <= before) add(`is ${end}, not above the ${before} before it: tiers rise`);
    before = BigInt(end);
    if (isLast) add("the last tier is up to inf");
  }
  return issues;
}
