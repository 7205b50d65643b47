/** What a customer's periods and bills follow from, as the control store holds it. */
import type { Mode, SqlRunner } from "@tallyhouse/domain";
import type { Assignment, BillingHistory, ContractVersion, Plan, PlanVersion } from "@tallyhouse/plans";

/** One customer, with everything that decides its periods. */
export interface BilledCustomer {
  readonly customer: string;
  readonly name: string;
  /** IANA name: days of what the customer sees. Periods are counted in UTC. */
  readonly zone: string;
  /** null: what its plan says. */
  readonly billing: "stripe" | "none" | null;
  readonly history: BillingHistory;
}

/** Customers by id, and every version of every plan of the mode, by key and version. */
export interface BillingState {
  readonly customers: ReadonlyMap<string, BilledCustomer>;
  readonly versions: readonly PlanVersion[];
}

/**
 * Reads customers in bulk; unknown ones are left out. Assignments that a later decision replaced are none.
 *
 * Plans come last: a plan is applied before it is assigned, so every assignment that was read finds its plan.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readBillingState(
  control: SqlRunner,
  input: { readonly mode: Mode; readonly customers: readonly string[] },
): Promise<BillingState> {
  const { mode, customers } = input;
  const of = [mode, customers];
  const rows = await control.query<CustomerRow>(
    "SELECT customer_id, name, zone, billing FROM customer WHERE mode = $1 AND customer_id = ANY($2)",
    of,
  );
  const contracts = Map.groupBy(
    await control.query<ContractRow>(
      `SELECT customer_id, version, plan_key, overrides::text AS overrides, meter_versions::text AS meter_versions, effective_at, created_at
       FROM customer_contract WHERE mode = $1 AND customer_id = ANY($2) ORDER BY customer_id, version`,
      of,
    ),
    ({ customer_id: id }) => id,
  );
  const assignments = Map.groupBy(
    await control.query<AssignmentRow>(
      `SELECT customer_id, plan_key, effective_at, anchor_at
       FROM customer_assignment WHERE mode = $1 AND customer_id = ANY($2) AND superseded_at IS NULL
       ORDER BY customer_id, effective_at`,
      of,
    ),
    ({ customer_id: id }) => id,
  );
  const versions = await readPlanVersions(control, mode);
  const billed = rows.map(({ customer_id: customer, name, zone, billing }): [string, BilledCustomer] => {
    const history = {
      assignments: (assignments.get(customer) ?? []).map(assignmentOf),
      contracts: (contracts.get(customer) ?? []).map(contractOf),
      versions,
    };
    return [customer, { customer, name, zone, billing, history }];
  });
  return { customers: new Map(billed), versions };
}

/**
 * Every version of every plan of the mode, by key and version.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readPlanVersions(control: SqlRunner, mode: Mode): Promise<readonly PlanVersion[]> {
  const rows = await control.query<PlanRow>(
    `SELECT key, version, digest, body::text AS body, created_at FROM catalogue_version
     WHERE mode = $1 AND kind = 'plan' ORDER BY key, version`,
    [mode],
  );
  return rows.map(({ body, created_at: createdAt, ...row }) => ({
    mode,
    ...row,
    ...(JSON.parse(body) as { plan: Plan; meterVersions: Record<string, number> }),
    createdAt: createdAt.getTime(),
  }));
}

/**
 * Customers that have, had or will have a plan, by id in the order of bytes: one page behind `after`.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function listPlannedCustomers(
  control: SqlRunner,
  page: { readonly mode: Mode; readonly after: string; readonly limit: number },
): Promise<readonly string[]> {
  const rows = await control.query<{ id: string }>(
    `SELECT DISTINCT customer_id COLLATE "C" AS id FROM customer_assignment
     WHERE mode = $1 AND superseded_at IS NULL AND plan_key IS NOT NULL AND customer_id COLLATE "C" > $2
     ORDER BY id LIMIT $3`,
    [page.mode, page.after, page.limit],
  );
  return rows.map(({ id }) => id);
}

/**
 * How many customers {@link listPlannedCustomers} goes through.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function countPlannedCustomers(control: SqlRunner, mode: Mode): Promise<number> {
  const [row] = await control.query<{ customers: number }>(
    `SELECT count(DISTINCT customer_id)::integer AS customers FROM customer_assignment
     WHERE mode = $1 AND superseded_at IS NULL AND plan_key IS NOT NULL`,
    [mode],
  );
  return row?.customers ?? 0;
}

interface CustomerRow {
  readonly customer_id: string;
  readonly name: string;
  readonly zone: string;
  readonly billing: "stripe" | "none" | null;
}
interface AssignmentRow {
  readonly customer_id: string;
  readonly plan_key: string | null;
  readonly effective_at: Date;
  readonly anchor_at: Date;
}
interface ContractRow {
  readonly customer_id: string;
  readonly version: number;
  readonly plan_key: string;
  readonly overrides: string;
  readonly meter_versions: string;
  readonly effective_at: Date;
  readonly created_at: Date;
}
interface PlanRow {
  readonly key: string;
  readonly version: number;
  readonly digest: string;
  readonly body: string;
  readonly created_at: Date;
}

function assignmentOf(row: AssignmentRow): Assignment {
  return { plan: row.plan_key, effectiveAt: row.effective_at.getTime(), anchorAt: row.anchor_at.getTime() };
}

function contractOf(row: ContractRow): ContractVersion {
  return {
    version: row.version,
    plan: row.plan_key,
    overrides: JSON.parse(row.overrides) as Record<string, unknown>,
    meterVersions: JSON.parse(row.meter_versions) as Record<string, number>,
    effectiveAt: row.effective_at.getTime(),
    createdAt: row.created_at.getTime(),
  };
}
