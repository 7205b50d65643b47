/** One customer whole: who, on which plan, what period runs, what was decided. */
import { readBillingState } from "@tallyhouse/billing";
import { assert, type ControlStore, formatInstant, type SqlRunner } from "@tallyhouse/domain";
import { type BillingHistory, type BillingPeriod, type ContractVersion, periodAt, periodsOf } from "@tallyhouse/plans";
import { type Customer, type CustomerKey, readCustomer } from "./customer-store.ts";

/** A customer's own fields as the API shows them. */
export function customerView({ id, mode, name, zone, billing, contacts, createdAt, createdBy }: Customer): object {
  return { id, mode, name, zone, billing, contacts, createdAt: formatInstant(createdAt), createdBy };
}

/** `pro@3`, with a contract `pro@3+2`. */
function planName({ version, contract }: BillingPeriod): string {
  return `${version.key}@${version.version}${contract === null ? "" : `+${contract.version}`}`;
}

function periodView(period: BillingPeriod | null): object | null {
  if (period === null) return null;
  const { startAt, endAt, anchorAt, plan } = period;
  return {
    start: formatInstant(startAt),
    end: formatInstant(endAt),
    anchor: formatInstant(anchorAt),
    interval: plan.interval,
    plan: planName(period),
  };
}

/** A contract as the API shows it. `effectiveAt` null: every period of the plan has it. */
export function contractView({
  version,
  plan,
  overrides,
  meterVersions,
  effectiveAt,
  createdAt,
}: ContractVersion): object {
  return {
    version,
    plan,
    overrides,
    meterVersions,
    effectiveAt: effectiveAt === 0 ? null : formatInstant(effectiveAt),
    createdAt: formatInstant(createdAt),
  };
}

/** The period that runs, and the first one after it that is decided. */
function periodsNow(
  history: BillingHistory,
  nowAt: number,
): { current: BillingPeriod | null; next: BillingPeriod | null } {
  const current = periodAt(history, nowAt);
  const laterAt = Math.max(nowAt, ...history.assignments.map(({ effectiveAt }) => effectiveAt));
  const endAt = Math.max(current?.endAt ?? nowAt, laterAt) + 1;
  const next = periodsOf(history, { startAt: current?.endAt ?? nowAt, endAt }).find(({ startAt }) => startAt > nowAt);
  return { current, next: next ?? null };
}

/** The whole customer; null for one that does not exist in the mode. One transaction, so that all of it is of one instant. */
export function readCustomerView(
  control: ControlStore,
  { nowAt, ...key }: CustomerKey & { readonly nowAt: number },
): Promise<object | null> {
  return control.transaction(async (tx) => {
    const customer = await readCustomer(tx, key);
    if (customer === null) return null;
    const { customers } = await readBillingState(tx, { mode: key.mode, customers: [key.id] });
    const billed = customers.get(key.id);
    assert(billed !== undefined, "a customer that was read is there");
    const { current, next } = periodsNow(billed.history, nowAt);
    const contract = billed.history.contracts.findLast(({ plan }) => plan === (current ?? next)?.version.key);
    return {
      ...customerView(customer),
      plan: current === null ? null : planName(current),
      billsTo: customer.billing ?? current?.plan.billing ?? null,
      currentPeriod: periodView(current),
      nextPeriod: periodView(next),
      contract: contract === undefined ? null : contractView(contract),
      contracts: billed.history.contracts.length,
      assignments: await readAssignments(tx, key, nowAt),
    };
  });
}

/** Every decision, the latest first. */
async function readAssignments(tx: SqlRunner, { mode, id }: CustomerKey, nowAt: number): Promise<object[]> {
  const rows = await tx.query<{
    plan_key: string | null;
    effective_at: Date;
    anchor_at: Date;
    decided_at: Date;
    actor: string;
    reason: string;
    superseded_at: Date | null;
  }>(
    `SELECT plan_key, effective_at, anchor_at, decided_at, actor, reason, superseded_at FROM customer_assignment
     WHERE mode = $1 AND customer_id = $2 ORDER BY id DESC`,
    [mode, id],
  );
  const latest = rows
    .filter((row) => row.superseded_at === null && row.effective_at.getTime() <= nowAt)
    .reduce<number | null>((at, row) => Math.max(at ?? 0, row.effective_at.getTime()), null);
  return rows.map((row) => {
    const effectiveAt = row.effective_at.getTime();
    return {
      plan: row.plan_key,
      state: stateOf({ effectiveAt, latest, nowAt, isReplaced: row.superseded_at !== null }),
      effectiveAt: formatInstant(effectiveAt),
      anchorAt: formatInstant(row.anchor_at.getTime()),
      decidedAt: formatInstant(row.decided_at.getTime()),
      actor: row.actor,
      reason: row.reason,
    };
  });
}

function stateOf(row: {
  readonly effectiveAt: number;
  readonly latest: number | null;
  readonly nowAt: number;
  readonly isReplaced: boolean;
}): "replaced" | "planned" | "holds" | "past" {
  if (row.isReplaced) return "replaced";
  if (row.effectiveAt > row.nowAt) return "planned";
  return row.effectiveAt === row.latest ? "holds" : "past";
}
