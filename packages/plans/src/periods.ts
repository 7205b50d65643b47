/** Billing periods: which plan version rates which span of a customer's time. */
import { assert } from "@tallyhouse/domain";
import type { Interval, Plan, PlanVersion } from "./plan.ts";
import { contractedPlan } from "./plan-version.ts";

/** From `effectiveAt`, a period's boundary, the customer is on the plan; null: on none. */
export interface Assignment {
  readonly plan: string | null;
  readonly effectiveAt: number;
  /** The instant from which months or years are counted; the same as before while the interval is. */
  readonly anchorAt: number;
}

/** Fields of a plan that one customer has otherwise; never edited, a change is a new version. */
export interface ContractVersion {
  readonly version: number;
  readonly plan: string;
  /** In the words of a plans file, over the plan's own; see applyContract. */
  readonly overrides: Readonly<Record<string, unknown>>;
  /** The version that each meter of the contract's items had when it was stored; the plan's own meter versions win. */
  readonly meterVersions: Readonly<Record<string, number>>;
  readonly effectiveAt: number;
  readonly createdAt: number;
}

/** One half-open period with what rates it. */
export interface BillingPeriod {
  readonly startAt: number;
  readonly endAt: number;
  /** What its plan's months or years are counted from; the first of these counts after the start is the end. */
  readonly anchorAt: number;
  /** Whether another assignment begins before that count, and so is the end. */
  readonly isCutShort: boolean;
  /** The newest version applied at or before the start, or the first one. */
  readonly version: PlanVersion;
  readonly contract: ContractVersion | null;
  /** The plan of the version with the contract applied. */
  readonly plan: Plan;
}

/** All that a customer's periods follow from. */
export interface BillingHistory {
  /** In any order; no two of one `effectiveAt`. */
  readonly assignments: readonly Assignment[];
  /** Of one mode; at least one of every plan that is assigned. Others do no harm. */
  readonly versions: readonly PlanVersion[];
  readonly contracts: readonly ContractVersion[];
}

/** A half-open stretch of time, epoch milliseconds. */
export interface Span {
  readonly startAt: number;
  readonly endAt: number;
}

/** Where a period ends, and the count that the boundary belongs to. */
export interface PeriodBoundary {
  readonly at: number;
  readonly anchorAt: number;
  readonly interval: Interval;
}

const MONTHS: Readonly<Record<Interval, number>> = { month: 1, year: 12 };

/**
 * The instant `months` calendar months after the anchor (before it, where negative), in UTC: same day of the month, or the month's last
 * one where it has no such day, and the same time of day. Always counted from the anchor itself: 31 January has 28 February and then
 * 31 March, where a step from 28 February would lose the 31st for ever.
 */
export function addMonths(anchorAt: number, months: number): number {
  const anchor = new Date(anchorAt);
  const month = anchor.getUTCMonth() + months;
  const lastDay = new Date(Date.UTC(anchor.getUTCFullYear(), month + 1, 0)).getUTCDate();
  const day = Math.min(anchor.getUTCDate(), lastDay);
  const midnight = Date.UTC(anchor.getUTCFullYear(), anchor.getUTCMonth(), anchor.getUTCDate());
  return Date.UTC(anchor.getUTCFullYear(), month, day) + (anchorAt - midnight);
}

/** The first instant after `at` that is a whole number of intervals away from the anchor. */
function countedAfter(at: number, { anchorAt, interval }: { anchorAt: number; interval: Interval }): number {
  const step = MONTHS[interval];
  const [anchor, date] = [new Date(anchorAt), new Date(at)];
  const months = (date.getUTCFullYear() - anchor.getUTCFullYear()) * 12 + date.getUTCMonth() - anchor.getUTCMonth();
  let steps = Math.floor(months / step);
  while (addMonths(anchorAt, steps * step) <= at) steps += 1;
  return addMonths(anchorAt, steps * step);
}

/**
 * Every period that meets the span, in order of time.
 *
 * Periods of one stay on plans follow each other without gap or overlap; times without a plan have none. A period that has begun
 * depends on nothing that is decided later: versions, contracts and assignments count from the first start that is not before them.
 * @throws {InvariantError} for an assigned plan that has no version, or a contract that does not fit: neither is ever stored.
 */
export function periodsOf(history: BillingHistory, span: Span): BillingPeriod[] {
  const found: BillingPeriod[] = [];
  for (const period of walk(history, span.endAt)) {
    if (period.endAt > span.startAt) found.push(period);
  }
  return found;
}

/** The period that holds the instant; null where the customer has no plan. */
export function periodAt(history: BillingHistory, at: number): BillingPeriod | null {
  return periodsOf(history, { startAt: at, endAt: at + 1 })[0] ?? null;
}

/** The end of the period that holds the instant; null where the customer has no plan, and so no boundary. */
export function boundaryAfter(history: BillingHistory, at: number): PeriodBoundary | null {
  const period = periodAt(history, at);
  return period && { at: period.endAt, anchorAt: period.anchorAt, interval: period.plan.interval };
}

/** Periods in order of time, from the first assignment on; the last one begins before `untilAt`. */
function* walk(history: BillingHistory, untilAt: number): Generator<BillingPeriod> {
  const assignments = history.assignments.toSorted((a, b) => a.effectiveAt - b.effectiveAt);
  const terms = createTerms(history);
  let before = null as BillingPeriod | null;
  for (const [index, { plan, effectiveAt, anchorAt: assignedAnchorAt }] of assignments.entries()) {
    if (plan === null) continue;
    const nextAt = assignments[index + 1]?.effectiveAt ?? Number.POSITIVE_INFINITY;
    let anchorAt = assignedAnchorAt;
    for (let startAt = effectiveAt; startAt < Math.min(nextAt, untilAt);) {
      const rated = terms(plan, startAt);
      const { interval } = rated.plan;
      // Another interval than that of the period before it: its count begins here. Years from the 31st of another month would
      // make a first period of any length.
      if (before?.endAt === startAt && before.plan.interval !== interval) anchorAt = startAt;
      const countedAt = countedAfter(startAt, { anchorAt, interval });
      const endAt = Math.min(countedAt, nextAt);
      before = { startAt, endAt, anchorAt, isCutShort: endAt < countedAt, ...rated };
      yield before;
      startAt = endAt;
    }
  }
}

type Terms = Pick<BillingPeriod, "version" | "contract" | "plan">;

/** What rates a period of a plan that begins at an instant. Plans with a contract are made once each. */
function createTerms({ versions, contracts }: BillingHistory): (plan: string, startAt: number) => Terms {
  const made = new Map<string, Terms>();
  return (plan, startAt) => {
    const version = versionAt(
      versions.filter(({ key }) => key === plan),
      startAt,
    );
    assert(version !== undefined, `plan ${plan} has no version`);
    const contract =
      contracts
        .filter((each) => each.plan === plan && each.effectiveAt <= startAt)
        .toSorted((a, b) => a.effectiveAt - b.effectiveAt || a.version - b.version)
        .at(-1) ?? null;
    const name = `${plan}@${version.version}+${contract?.version ?? 0}`;
    const terms = made.get(name) ?? { version, contract, plan: contractedPlan(version, contract) };
    made.set(name, terms);
    return terms;
  };
}

/** The newest version made at or before the instant; the first one where the assignment reaches further back than the plan. */
function versionAt(versions: readonly PlanVersion[], at: number): PlanVersion | undefined {
  const ordered = versions.toSorted((a, b) => a.version - b.version);
  return ordered.findLast(({ createdAt }) => createdAt <= at) ?? ordered[0];
}
