/** Contracts: stored when the plan that they make is whole and valid, never edited. */
import { readBillingState } from "@tallyhouse/billing";
import {
  canonicalJson,
  type ControlStore,
  type FieldIssue,
  type JsonObject,
  type Mode,
  type SqlRunner,
} from "@tallyhouse/domain";
import {
  applyContract,
  type BillingHistory,
  type ContractVersion,
  type EndpointRule,
  type Plan,
  type PlanVersion,
  periodsOf,
  resolveMeters,
} from "@tallyhouse/plans";
import { writeAudit } from "../admin-audit.ts";
import { readKnownMeters } from "../plans/catalogue-store.ts";
import { currencyRule } from "./assign-plan.ts";
import type { Authorship, CustomerKey } from "./customer-store.ts";

export type ContractOutcome =
  | { readonly kind: "stored" | "unchanged"; readonly contract: ContractVersion }
  | { readonly kind: "customer unknown" | "plan unknown" }
  | { readonly kind: "invalid"; readonly issues: readonly FieldIssue[] };

/**
 * Stores the customer's contract for a plan: the first period of the plan that begins from now on has it; where none has begun yet,
 * every period has. Safe to repeat: overrides that are the newest ones already are `unchanged`.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function storeContract(
  control: ControlStore,
  input: CustomerKey & { readonly plan: string; readonly overrides: JsonObject } & Authorship,
): Promise<ContractOutcome> {
  const { mode, id, plan, overrides, nowAt } = input;
  return control.transaction(async (tx) => {
    const { customers, versions } = await readBillingState(tx, { mode, customers: [id] });
    const history = customers.get(id)?.history;
    if (history === undefined) return { kind: "customer unknown" };
    const version = versions.findLast(({ key }) => key === plan);
    if (version === undefined) return { kind: "plan unknown" };
    const before = history.contracts.findLast((each) => each.plan === plan) ?? null;
    if (before !== null && canonicalJson(before.overrides) === canonicalJson(overrides))
      return { kind: "unchanged", contract: before };
    const context = { endpoints: await readEndpoints(tx, mode), plans: newestOf(versions) };
    const reading = applyContract(version.plan, overrides, context);
    if (reading.kind === "problems") return { kind: "invalid", issues: reading.issues };
    const currency = currencyRule(history, { currency: reading.plan.currency, nowAt });
    if (currency !== null) return { kind: "invalid", issues: [{ path: ["currency"], rule: currency }] };
    const resolved = resolveMeters(reading.plan.items, await readKnownMeters(tx, mode, nowAt));
    const issues = resolved.issues.filter((issue) => !isFrozen(issue, version, reading.plan));
    if (issues.length > 0) return { kind: "invalid", issues };
    const contract: ContractVersion = {
      version: (history.contracts.at(-1)?.version ?? 0) + 1,
      plan,
      overrides,
      meterVersions: resolved.meterVersions,
      effectiveAt: effectiveAtOf(history, plan, nowAt),
      createdAt: nowAt,
    };
    await insert(tx, { ...input, contract, before });
    return { kind: "stored", contract };
  });
}

/** The end of the last period of this plan that has begun; 1970 where none has. */
function effectiveAtOf(history: BillingHistory, plan: string, nowAt: number): number {
  const begun = periodsOf(history, { startAt: Number.NEGATIVE_INFINITY, endAt: nowAt + 1 });
  return begun.findLast(({ version }) => version.key === plan)?.endAt ?? 0;
}

/** Whether the issue is that a meter cannot be named now, of a meter whose version the plan has frozen: that one is counted. */
function isFrozen({ path }: FieldIssue, version: PlanVersion, plan: Plan): boolean {
  const [, item, field] = path;
  if (field !== "meter" || plan.items === "custom") return false;
  return Object.hasOwn(version.meterVersions, plan.items[String(item)]?.meter ?? "");
}

/** Versions are in order: the last one of a key wins. */
function newestOf(versions: readonly PlanVersion[]): Plan[] {
  return [...new Map(versions.map(({ key, plan }) => [key, plan])).values()];
}

async function readEndpoints(tx: SqlRunner, mode: Mode): Promise<readonly EndpointRule[]> {
  const [row] = await tx.query<{ body: readonly EndpointRule[] }>(
    "SELECT body FROM catalogue_version WHERE mode = $1 AND kind = 'endpoints' ORDER BY version DESC LIMIT 1",
    [mode],
  );
  return row?.body ?? [];
}

async function insert(
  tx: SqlRunner,
  input: CustomerKey & Authorship & { readonly contract: ContractVersion; readonly before: ContractVersion | null },
): Promise<void> {
  const { mode, id, actor, reason, nowAt, contract, before } = input;
  const { version, plan, overrides, meterVersions, effectiveAt } = contract;
  await tx.query(
    `INSERT INTO customer_contract (mode, customer_id, version, plan_key, overrides, meter_versions, effective_at, created_at,
       created_by, reason)
     VALUES ($1, $2, $3, $4, $5::text::json, $6::text::json, $7, $8, $9, $10)`,
    [
      mode,
      id,
      version,
      plan,
      JSON.stringify(overrides),
      JSON.stringify(meterVersions),
      new Date(effectiveAt),
      new Date(nowAt),
      actor,
      reason,
    ],
  );
  const shown = (each: ContractVersion): object => ({ version: each.version, plan, overrides: each.overrides });
  await writeAudit(tx, {
    mode,
    actor,
    reason,
    at: nowAt,
    action: "customer.contract",
    subject: { kind: "customer", id },
    before: before === null ? null : shown(before),
    after: shown(contract),
  });
}
