/** When a decision about a customer's plan takes effect, and what it replaces. Pure. */
import { DAY_MS, floorTo, formatInstant } from "@tallyhouse/domain";
import { type Assignment, type BillingHistory, type BillingPeriod, periodAt, periodsOf } from "@tallyhouse/plans";

/** Raw events live 400 days; without them the edges of a period cannot be counted. */
const FROM_AGE_MAX_MS = 400 * DAY_MS;
/** Ten years: further ahead nobody knows the plan. */
const AHEAD_MAX_MS = 3_660 * DAY_MS;

/** What is asked for. */
export interface Wanted {
  readonly plan: string | null;
  /** Not before this instant; null: as soon as possible. */
  readonly notBeforeAt: number | null;
  /** The start of a first period; null: the beginning of the UTC day. */
  readonly fromAt: number | null;
}

export type Decision =
  | { readonly kind: "decided"; readonly assignment: Assignment; readonly supersedes: readonly Assignment[] }
  /** It is so already. */
  | { readonly kind: "unchanged"; readonly since: Assignment | null }
  | { readonly kind: "refused"; readonly field: "at" | "from"; readonly rule: string };

/**
 * Decides. A period that has begun is never touched: money moves at the first boundary that is not before what was asked for. Where
 * there is no plan there is no boundary either, and the first period begins when the operator says.
 * @param history with the assignments that hold, and the versions of the wanted plan
 */
export function decideAssignment(history: BillingHistory, wanted: Wanted, nowAt: number): Decision {
  const { assignments } = history;
  const { plan, fromAt, notBeforeAt } = wanted;
  const begun = periodsOf(history, { startAt: Number.NEGATIVE_INFINITY, endAt: nowAt + 1 }).at(-1) ?? null;
  const repeated = assignments.find((each) => each.effectiveAt === fromAt && each.plan === plan);
  if (repeated !== undefined) return { kind: "unchanged", since: repeated };
  const refusal = refusalOf(wanted, { begun, nowAt });
  if (refusal !== null) return refusal;
  const isRunning = begun !== null && begun.endAt > nowAt;
  const wantedAt = fromAt ?? notBeforeAt ?? (isRunning ? nowAt : floorTo(nowAt, DAY_MS));
  const inside = periodAt(until(history, wantedAt), wantedAt);
  if (inside !== null && inside.startAt < wantedAt && fromAt !== null)
    return refused("from", `lies inside the period ${spanText(inside)}, which is decided already: say at`);
  const boundaryAt = inside !== null && inside.startAt < wantedAt ? inside.endAt : wantedAt;
  const effectiveAt = Math.max(boundaryAt, begun?.endAt ?? boundaryAt);
  return decisionAt(history, plan, effectiveAt);
}

function refusalOf(
  { fromAt, notBeforeAt }: Wanted,
  { begun, nowAt }: { readonly begun: BillingPeriod | null; readonly nowAt: number },
): Decision | null {
  if (fromAt !== null && begun !== null && fromAt < begun.endAt) {
    const isRunning = begun.endAt > nowAt;
    const end = formatInstant(begun.endAt);
    return isRunning
      ? refused("from", `is for a customer without a plan; this one's period ends at ${end}: leave it out, or say at`)
      : refused("from", `must not be before the end of the last period, ${end}`);
  }
  if (fromAt !== null && fromAt < nowAt - FROM_AGE_MAX_MS)
    return refused("from", "lies more than 400 days back, where usage events are not kept any more");
  if (notBeforeAt !== null && notBeforeAt < nowAt) return refused("at", "must not be in the past");
  const askedAt = fromAt ?? notBeforeAt ?? nowAt;
  if (askedAt > nowAt + AHEAD_MAX_MS) return refused(fromAt === null ? "at" : "from", "lies more than ten years ahead");
  return null;
}

function decisionAt(history: BillingHistory, plan: string | null, effectiveAt: number): Decision {
  const { assignments } = history;
  const supersedes = assignments.filter((each) => each.effectiveAt >= effectiveAt);
  const kept = until(history, effectiveAt);
  const latest = kept.assignments.toSorted((a, b) => a.effectiveAt - b.effectiveAt).at(-1) ?? null;
  if (supersedes.length === 0 && (latest?.plan ?? null) === plan) return { kind: "unchanged", since: latest };
  const [next] = supersedes;
  if (supersedes.length === 1 && next?.effectiveAt === effectiveAt && next.plan === plan)
    return { kind: "unchanged", since: next };
  const anchorAt = plan === null ? effectiveAt : anchorOf(kept, { plan, effectiveAt });
  return { kind: "decided", assignment: { plan, effectiveAt, anchorAt }, supersedes };
}

/** The count goes on from a period that ends just then with the same interval; else it begins. */
function anchorOf(
  kept: BillingHistory,
  { plan, effectiveAt }: { readonly plan: string; readonly effectiveAt: number },
): number {
  const before = periodAt(kept, effectiveAt - 1);
  if (before === null || before.endAt !== effectiveAt) return effectiveAt;
  const assigned = { plan, effectiveAt, anchorAt: before.anchorAt };
  const next = periodAt({ ...kept, assignments: [...kept.assignments, assigned] }, effectiveAt);
  return next?.anchorAt ?? effectiveAt;
}

/** The history with only what takes effect before the instant. */
function until(history: BillingHistory, at: number): BillingHistory {
  return { ...history, assignments: history.assignments.filter((each) => each.effectiveAt < at) };
}

function refused(field: "at" | "from", rule: string): Decision {
  return { kind: "refused", field, rule };
}

function spanText({ startAt, endAt }: BillingPeriod): string {
  return `${formatInstant(startAt)} to ${formatInstant(endAt)}`;
}
