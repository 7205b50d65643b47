/** Puts customers on plans: decides when it takes effect, and stores decision, replaced decisions and audit as one. */
import { readBillingState } from "@tallyhouse/billing";
import { type ControlStore, type FieldIssue, formatInstant, type SqlRunner } from "@tallyhouse/domain";
import { applyContract, type Assignment, type BillingHistory, periodsOf } from "@tallyhouse/plans";
import { writeAudit } from "../admin-audit.ts";
import type { Authorship, CustomerKey } from "./customer-store.ts";
import { decideAssignment, type Wanted } from "./decide-assignment.ts";

export type PlanOutcome =
  | { readonly kind: "decided"; readonly assignment: Assignment; readonly supersedes: readonly Assignment[] }
  | { readonly kind: "unchanged"; readonly since: Assignment | null }
  | { readonly kind: "refused"; readonly field: "at" | "from" | "plan"; readonly rule: string }
  | { readonly kind: "customer unknown" | "plan unknown" }
  /** The plan has custom fields that no contract of the customer sets, or a contract that does not fit it. */
  | { readonly kind: "contract needed"; readonly issues: readonly FieldIssue[] };

/**
 * Puts the customer on the plan, or on none. Safe to repeat: what is so already is `unchanged`. Two callers at once: transactions are
 * serializable and one instant has one assignment that holds, so the second decides on what the first one stored.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function assignPlan(
  control: ControlStore,
  input: CustomerKey & { readonly wanted: Wanted } & Authorship,
): Promise<PlanOutcome> {
  const { mode, id, wanted, nowAt } = input;
  return control.transaction(async (tx) => {
    const { customers, versions } = await readBillingState(tx, { mode, customers: [id] });
    const history = customers.get(id)?.history;
    if (history === undefined) return { kind: "customer unknown" };
    if (wanted.plan !== null && !versions.some(({ key }) => key === wanted.plan)) return { kind: "plan unknown" };
    const decision = decideAssignment(history, wanted, nowAt);
    if (decision.kind !== "decided") return decision;
    const planned = versions.findLast(({ key }) => key === wanted.plan);
    const currency = currencyRule(history, { currency: planned?.plan.currency, nowAt });
    if (currency !== null) return { kind: "refused", field: "plan", rule: currency };
    const issues = misfits(history, decision.assignment);
    if (issues.length > 0) return { kind: "contract needed", issues };
    await store(tx, { ...input, ...decision });
    return decision;
  });
}

/** Why a customer cannot be billed in the currency; null: it can. Stripe binds a customer to the currency of its first invoice. */
export function currencyRule(
  history: BillingHistory,
  { currency, nowAt }: { readonly currency: string | undefined; readonly nowAt: number },
): string | null {
  const begun = periodsOf(history, { startAt: Number.NEGATIVE_INFINITY, endAt: nowAt + 1 }).at(-1);
  if (currency === undefined || begun === undefined || begun.plan.currency === currency) return null;
  return `is ${currency}; this customer is billed in ${begun.plan.currency}, and no customer changes its currency`;
}

/** What keeps the plan from rating the customer's periods from the assignment on: of the version that rates the first, and of later ones. */
function misfits({ versions, contracts }: BillingHistory, { plan, effectiveAt }: Assignment): readonly FieldIssue[] {
  const ordered = versions.filter(({ key }) => key === plan).toSorted((a, b) => a.version - b.version);
  const first = Math.max(
    0,
    ordered.findLastIndex(({ createdAt }) => createdAt <= effectiveAt),
  );
  const contract = contracts
    .filter((each) => each.plan === plan && each.effectiveAt <= effectiveAt)
    .toSorted((a, b) => a.effectiveAt - b.effectiveAt || a.version - b.version)
    .at(-1);
  for (const version of ordered.slice(first)) {
    const reading = applyContract(version.plan, contract?.overrides ?? {});
    if (reading.kind === "problems") return reading.issues;
  }
  return [];
}

async function store(
  tx: SqlRunner,
  input: CustomerKey & Authorship & { readonly assignment: Assignment; readonly supersedes: readonly Assignment[] },
): Promise<void> {
  const { mode, id, actor, reason, nowAt, assignment, supersedes } = input;
  const { plan, effectiveAt, anchorAt } = assignment;
  await tx.query(
    `UPDATE customer_assignment SET superseded_at = $4
     WHERE mode = $1 AND customer_id = $2 AND effective_at >= $3 AND superseded_at IS NULL`,
    [mode, id, new Date(effectiveAt), new Date(nowAt)],
  );
  await tx.query(
    `INSERT INTO customer_assignment (mode, customer_id, effective_at, plan_key, anchor_at, decided_at, actor, reason)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [mode, id, new Date(effectiveAt), plan, new Date(anchorAt), new Date(nowAt), actor, reason],
  );
  await writeAudit(tx, {
    mode,
    actor,
    reason,
    at: nowAt,
    action: "customer.set-plan",
    subject: { kind: "customer", id },
    before: supersedes.length === 0 ? null : supersedes.map(assignmentView),
    after: assignmentView(assignment),
  });
}

/** An assignment as the API shows it. */
export function assignmentView({ plan, effectiveAt, anchorAt }: Assignment): {
  readonly plan: string | null;
  readonly effectiveAt: string;
  readonly anchorAt: string;
} {
  return { plan, effectiveAt: formatInstant(effectiveAt), anchorAt: formatInstant(anchorAt) };
}
