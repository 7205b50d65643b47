/** Versions of what is sold, as the control store keeps them. */
import { type Aggregation, formatInstant, type Mode, type SqlRunner } from "@tallyhouse/domain";
import type { KnownMeter, Plan, PlanVersion } from "@tallyhouse/plans";

/** What versions are kept of. The list of endpoints has one key, "endpoints". */
export type CatalogueKind = "plan" | "endpoints" | "bundle";

/** A row of catalogue_version. */
export interface CatalogueVersion {
  readonly kind: CatalogueKind;
  readonly key: string;
  readonly version: number;
  readonly digest: string;
  /** Of a plan {@link PlanBody}; else the endpoints, or the bundle. */
  readonly body: unknown;
  readonly createdAt: number;
  readonly createdBy: string;
}

/** A plan version's body: the plan, and the versions that its meters had. */
export type PlanBody = Pick<PlanVersion, "plan" | "meterVersions">;

/** Every version of the mode, by kind and key, oldest first; or those of one plan. */
export async function readCatalogue(
  store: SqlRunner,
  mode: Mode,
  planKey: string | null = null,
): Promise<CatalogueVersion[]> {
  const rows = await store.query<Omit<CatalogueVersion, "createdAt" | "createdBy"> & { at: Date; by: string }>(
    `SELECT kind, key, version, digest, body, created_at AS at, created_by AS by FROM catalogue_version
     WHERE mode = $1 AND ($2::text IS NULL OR (kind = 'plan' AND key = $2)) ORDER BY kind, key, version`,
    [mode, planKey],
  );
  return rows.map(({ at, by, ...row }) => ({ ...row, createdAt: at.getTime(), createdBy: by }));
}

/** The newest version of each kind and key, of versions that are oldest first. */
export function newestOf(versions: readonly CatalogueVersion[]): Map<string, CatalogueVersion> {
  return new Map(versions.map((version) => [`${version.kind} ${version.key}`, version]));
}

/** Stores a version. @throws when it is there already: the transaction of another apply was first. */
export async function insertCatalogueVersion(
  tx: SqlRunner,
  mode: Mode,
  version: Omit<CatalogueVersion, "body"> & { readonly body: object },
): Promise<void> {
  const { kind, key, digest, body, createdAt, createdBy } = version;
  await tx.query(
    `INSERT INTO catalogue_version (mode, kind, key, version, digest, body, created_at, created_by)
     VALUES ($1, $2, $3, $4, $5, $6::json, $7, $8)`,
    [mode, kind, key, version.version, digest, JSON.stringify(body), new Date(createdAt), createdBy],
  );
}

interface MeterRow {
  readonly key: string;
  readonly version: number;
  readonly rule: { readonly aggregation: Aggregation; readonly dimensions: Readonly<Record<string, string>> };
  readonly active_from: Date;
  readonly ends_at: Date | null;
}

/** The version of every meter that a plan applied now would name. */
export async function readKnownMeters(store: SqlRunner, mode: Mode, now: number): Promise<Map<string, KnownMeter>> {
  const rows = await store.query<MeterRow>(
    "SELECT key, version, rule, active_from, ends_at FROM meter_version WHERE mode = $1 ORDER BY key, version DESC",
    [mode],
  );
  const known = [...Map.groupBy(rows, ({ key }) => key)].map(
    ([key, versions]) => [key, knownOf(versions, now)] as const,
  );
  return new Map(known.flatMap(([key, meter]) => (meter === null ? [] : [[key, meter]])));
}

/**
 * The newest version that counts already and has no end. One that begins later is named only where nothing counts before it: else
 * what is used until then would be counted by a version that the plan does not name. `versions` newest first.
 */
function knownOf(versions: readonly MeterRow[], now: number): KnownMeter | null {
  const endless = versions.filter(({ ends_at: endsAt }) => endsAt === null);
  const chosen = endless.find(({ active_from: fromAt }) => fromAt.getTime() <= now) ?? endless[0] ?? versions[0];
  if (chosen === undefined) return null;
  const { version, rule, active_from: fromAt, ends_at: endsAt } = chosen;
  return {
    version,
    aggregation: rule.aggregation,
    dimensions: Object.keys(rule.dimensions),
    isEnded: endsAt !== null,
    countsFrom:
      endsAt === null && fromAt.getTime() > now && versions.length > 1 ? formatInstant(fromAt.getTime()) : null,
  };
}

/**
 * How many customers are on each of the plans, now or by an assignment to come; of all of them, or of those who have no contract for
 * it. Plans without any are left out.
 */
export async function readCustomersOfPlans(
  store: SqlRunner,
  input: {
    readonly mode: Mode;
    readonly plans: readonly string[];
    readonly now: number;
    readonly isWithoutContract: boolean;
  },
): Promise<Map<string, number>> {
  const { mode, plans, now, isWithoutContract } = input;
  if (plans.length === 0) return new Map();
  const rows = await store.query<{ plan: string; customers: number }>(
    `SELECT plan_key AS plan, count(DISTINCT customer_id)::int AS customers FROM customer_assignment AS mine
     WHERE mode = $1 AND superseded_at IS NULL AND plan_key = ANY($2::text[])
       AND (effective_at > $3 OR NOT EXISTS (
         SELECT FROM customer_assignment AS later
         WHERE later.mode = mine.mode AND later.customer_id = mine.customer_id AND later.superseded_at IS NULL
           AND later.effective_at > mine.effective_at AND later.effective_at <= $3))
       AND (NOT $4::boolean OR NOT EXISTS (
         SELECT FROM customer_contract AS contract
         WHERE contract.mode = mine.mode AND contract.customer_id = mine.customer_id AND contract.plan_key = mine.plan_key))
     GROUP BY plan_key`,
    [mode, plans, new Date(now), isWithoutContract],
  );
  return new Map(rows.map(({ plan, customers }) => [plan, customers]));
}

/** A contract that rates a period now or will: the newest that has begun, and those that have not. */
export interface StandingContract {
  readonly customer: string;
  readonly plan: Plan["key"];
  readonly version: number;
  readonly overrides: Readonly<Record<string, unknown>>;
}

/** Contracts over the plans that a period from now on may be rated by. */
export async function readStandingContracts(
  store: SqlRunner,
  input: { readonly mode: Mode; readonly plans: readonly string[]; readonly now: number },
): Promise<StandingContract[]> {
  const { mode, plans, now } = input;
  if (plans.length === 0) return [];
  return store.query<StandingContract>(
    `SELECT customer_id AS customer, plan_key AS plan, version, overrides FROM customer_contract AS mine
     WHERE mode = $1 AND plan_key = ANY($2::text[])
       AND NOT EXISTS (
         SELECT FROM customer_contract AS later
         WHERE later.mode = mine.mode AND later.customer_id = mine.customer_id AND later.plan_key = mine.plan_key
           AND (later.effective_at, later.version) > (mine.effective_at, mine.version)
           AND later.effective_at <= greatest(mine.effective_at, $3))
     ORDER BY customer_id, version`,
    [mode, plans, new Date(now)],
  );
}
