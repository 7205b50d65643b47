/** Reads what customers' periods follow from: assignments, contracts and plan versions, for many customers at once. */
import type { Mode, SqlRunner } from "@tallyhouse/domain";
import type { Assignment, BillingHistory, ContractVersion, Plan, PlanVersion } from "@tallyhouse/plans";

/** Histories by customer; who has no assignment is not in it. */
export async function readHistories(
  control: SqlRunner,
  { mode, customers }: { readonly mode: Mode; readonly customers: readonly string[] },
): Promise<ReadonlyMap<string, BillingHistory>> {
  const assignments = await control.query<{
    customer_id: string;
    plan_key: string | null;
    effective_at: Date;
    anchor_at: Date;
  }>(
    `SELECT customer_id, plan_key, effective_at, anchor_at FROM customer_assignment
     WHERE mode = $1 AND customer_id = ANY ($2::text[]) AND superseded_at IS NULL ORDER BY customer_id, effective_at`,
    [mode, customers],
  );
  const contracts = await control.query<{
    customer_id: string;
    version: number;
    plan_key: string;
    overrides: Record<string, unknown>;
    effective_at: Date;
    created_at: Date;
  }>(
    `SELECT customer_id, version, plan_key, overrides, effective_at, created_at FROM customer_contract
     WHERE mode = $1 AND customer_id = ANY ($2::text[]) ORDER BY customer_id, version`,
    [mode, customers],
  );
  const keys = [...new Set(assignments.flatMap(({ plan_key: key }) => key ?? []))];
  const versions = await readPlanVersions(control, { mode, keys });
  const contractsOf = Map.groupBy(contracts, ({ customer_id: id }) => id);
  const assignmentsOf = Map.groupBy(assignments, ({ customer_id: id }) => id);
  return new Map(
    [...assignmentsOf].map(([customer, rows]) => [
      customer,
      {
        assignments: rows.map(
          (row): Assignment => ({
            plan: row.plan_key,
            effectiveAt: row.effective_at.getTime(),
            anchorAt: row.anchor_at.getTime(),
          }),
        ),
        versions,
        contracts: (contractsOf.get(customer) ?? []).map(
          (row): ContractVersion => ({
            version: row.version,
            plan: row.plan_key,
            overrides: row.overrides,
            meterVersions: {},
            effectiveAt: row.effective_at.getTime(),
            createdAt: row.created_at.getTime(),
          }),
        ),
      },
    ]),
  );
}

/** Every version of the plans. */
export async function readPlanVersions(
  control: SqlRunner,
  { mode, keys }: { readonly mode: Mode; readonly keys: readonly string[] },
): Promise<readonly PlanVersion[]> {
  const rows = await control.query<{
    key: string;
    version: number;
    digest: string;
    body: { readonly plan: Plan; readonly meterVersions: Readonly<Record<string, number>> };
    created_at: Date;
  }>(
    `SELECT key, version, digest, body, created_at FROM catalogue_version
     WHERE mode = $1 AND kind = 'plan' AND key = ANY ($2::text[]) ORDER BY key, version`,
    [mode, keys],
  );
  return rows.map((row) => ({
    mode,
    key: row.key,
    version: row.version,
    digest: row.digest,
    plan: row.body.plan,
    meterVersions: row.body.meterVersions,
    createdAt: row.created_at.getTime(),
  }));
}
