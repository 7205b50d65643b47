/** What items and bundles ask of their meters. Pure; who calls it knows the meters. */
import type { Aggregation, FieldIssue, FieldPath } from "@tallyhouse/domain";
import type { Bundle, Plan, PlanItem } from "./plan.ts";

/** The version of a meter that a plan would name. */
export interface KnownMeter {
  readonly version: number;
  readonly aggregation: Aggregation;
  /** Names, in the meter's order. */
  readonly dimensions: readonly string[];
  /** Whether it was ended without a successor. */
  readonly isEnded: boolean;
  /** Where it begins later, and an earlier version counts until then: the instant; else null. */
  readonly countsFrom: string | null;
}

/** The version of each meter that a plan's items name, as far as they are known; and every broken rule. */
export interface MeterResolution {
  readonly meterVersions: Readonly<Record<string, number>>;
  /** Paths below the plan. */
  readonly issues: readonly FieldIssue[];
}

/** Resolves the meters of a plan's items to the versions that they name. */
export function resolveMeters(items: Plan["items"], meters: ReadonlyMap<string, KnownMeter>): MeterResolution {
  if (items === "custom") return { meterVersions: {}, issues: [] };
  const meterVersions: Record<string, number> = {};
  const issues = Object.entries(items).flatMap(([key, item]) => {
    const known = meters.get(item.meter);
    if (known !== undefined) meterVersions[item.meter] = known.version;
    return itemMeterIssues(item, known).map(({ path, rule }) => ({ path: ["items", key, ...path], rule }));
  });
  return { meterVersions, issues };
}

function itemMeterIssues(item: PlanItem, meter: KnownMeter | undefined): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const add = (path: FieldPath, rule: string): void => void issues.push({ path, rule });
  const trouble = meterTrouble(item.meter, meter);
  if (trouble !== null) add(["meter"], trouble);
  if (meter === undefined) return issues;
  const is = `"${item.meter}" is a ${meter.aggregation} meter`;
  const isAdded = meter.aggregation === "sum" || meter.aggregation === "count";
  if (!isAdded && Object.keys(item.where).length > 0) add(["where"], `is only for sum and count; ${is}`);
  for (const dimension of Object.keys(item.where)) {
    const list = meter.dimensions.length === 0 ? "none" : meter.dimensions.join(", ");
    if (isAdded && !meter.dimensions.includes(dimension))
      add(["where", dimension], `is no dimension of "${item.meter}"; it has ${list}`);
  }
  if (isAdded) return issues;
  for (const field of ["included", "cap"] as const)
    if (item[field] !== null) add([field], `is only for sum and count; ${is}`);
  if (item.policy !== "overage") add(["policy"], `${item.policy} is only for sum and count; ${is}`);
  return issues;
}

function meterTrouble(key: string, meter: KnownMeter | undefined): string | null {
  if (meter === undefined) return `there is no meter "${key}"; declare it with meters apply first`;
  if (meter.isEnded) return `the meter "${key}" was ended: nothing would be counted`;
  if (meter.countsFrom === null) return null;
  return `version ${meter.version} of "${key}" counts from ${meter.countsFrom} on, and what is used until then would be left out; apply the plan then`;
}

/** Every broken rule of a bundle, each with the path below it. */
export function bundleMeterIssues(bundle: Bundle, meters: ReadonlyMap<string, KnownMeter>): FieldIssue[] {
  const meter = meters.get(bundle.meter);
  const trouble = meterTrouble(bundle.meter, meter);
  const rule =
    meter === undefined || meter.aggregation === "sum" ? trouble : `must be a sum meter, not ${meter.aggregation}`;
  return rule === null ? [] : [{ path: ["meter"], rule }];
}
