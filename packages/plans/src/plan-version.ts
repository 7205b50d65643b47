/** Versions of plans: what makes two of them one, what a new one changes, and what of it is rated. Pure. */
import { createHash } from "node:crypto";
import { assert, canonicalJson, isJsonObject } from "@tallyhouse/domain";
import type { RatedItem, RatedPlan } from "@tallyhouse/pricing";
import { applyContract } from "./contract.ts";
import type { ContractVersion } from "./periods.ts";
import type { Plan, PlanVersion } from "./plan.ts";

/** SHA-256 (hex) of the plan with its meter versions. The order of items is a part of the plan: it is the order of a bill's lines. */
export function planDigest(plan: Plan, meterVersions: Readonly<Record<string, number>>): string {
  const items = plan.items === "custom" ? plan.items : Object.entries(plan.items);
  return contentDigest({ plan: { ...plan, items }, meterVersions });
}

/** SHA-256 (hex) of JSON, whatever the order of its keys. */
export function contentDigest(content: unknown): string {
  return createHash("sha256").update(canonicalJson(content)).digest("hex");
}

/** One field that differs. Absent is null. */
export interface PlanDifference {
  /** Dotted path, such as `items.api_calls.price.unit`. */
  readonly field: string;
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * Every field that differs, in the order of the first one's fields. Lists are compared whole, but for tiers, which are told one by
 * one. `before` null: everything is new.
 */
export function diffPlans(before: unknown, after: unknown): PlanDifference[] {
  return differences(before ?? null, after ?? null, "");
}

function differences(before: unknown, after: unknown, field: string): PlanDifference[] {
  if (isComposite(before) && isComposite(after) && Array.isArray(before) === Array.isArray(after)) {
    const [old, now] = [entriesOf(before), entriesOf(after)];
    const names = new Set([...old.keys(), ...now.keys()]);
    const inside = [...names].flatMap((name) =>
      differences(old.get(name) ?? null, now.get(name) ?? null, nameIn(field, name, Array.isArray(after))),
    );
    // Of items alone: the order of other fields means nothing, as they come from one schema.
    if (field !== "items" || !isMoved([...old.keys()], [...now.keys()])) return inside;
    return [...inside, { field: "items (order)", before: [...old.keys()], after: [...now.keys()] }];
  }
  return canonicalJson(before) === canonicalJson(after) ? [] : [{ field, before, after }];
}

/** Objects, and lists of objects (tiers, endpoints). */
function isComposite(value: unknown): value is object {
  return isJsonObject(value) || (Array.isArray(value) && value.some(isJsonObject));
}

function entriesOf(value: object): Map<string, unknown> {
  return new Map(Object.entries(value));
}

function nameIn(field: string, name: string, isList: boolean): string {
  if (isList) return `${field}[${name}]`;
  return field === "" ? name : `${field}.${name}`;
}

/** Whether those that stand in both stand in another order. */
function isMoved(before: readonly string[], after: readonly string[]): boolean {
  const kept = before.filter((name) => after.includes(name));
  const still = after.filter((name) => before.includes(name));
  return kept.some((name, index) => name !== still[index]);
}

/** A difference for people: `+` new, `-` gone, `~` changed. */
export function differenceText({ field, before, after }: PlanDifference): string {
  if (before === null) return `+ ${field}: ${textOf(after)}`;
  if (after === null) return `- ${field}: ${textOf(before)}`;
  return `~ ${field}: ${textOf(before)} → ${textOf(after)}`;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/**
 * What rates a period of the version: its plan, with the contract applied.
 * @throws {InvariantError} when the contract does not fit: contracts are checked against the plan before they are stored, and a plan
 *   that breaks one is not applied.
 */
export function ratedPlanOf(version: PlanVersion, contract: ContractVersion | null): RatedPlan {
  const plan = contractedPlan(version, contract);
  const meterVersions = { ...contract?.meterVersions, ...version.meterVersions };
  assert(plan.price !== "custom" && plan.items !== "custom", `plan ${plan.key} is rated without its contract`);
  const items = Object.entries(plan.items).map(([key, { meter, where, included, price }]): RatedItem => {
    const meterVersion = meterVersions[meter];
    assert(meterVersion !== undefined, `the meter ${meter} of plan ${plan.key} has no version`);
    return { key, meter, meterVersion, where, included, price };
  });
  const name = `${plan.key}@${version.version}${contract === null ? "" : `+${contract.version}`}`;
  return { plan: name, currency: plan.currency, fee: plan.price, items };
}

/** The plan of the version with the contract applied. @throws {InvariantError} see {@link ratedPlanOf}. */
export function contractedPlan(version: PlanVersion, contract: ContractVersion | null): Plan {
  if (contract === null) return version.plan;
  const reading = applyContract(version.plan, contract.overrides);
  if (reading.kind === "problems") {
    const [first] = reading.issues;
    const text = `${first?.path.map(String).join(".") ?? ""} ${first?.rule ?? ""}`;
    assert(false, `contract ${contract.version} does not fit ${version.key}@${version.version}: ${text}`);
  }
  return reading.plan;
}
