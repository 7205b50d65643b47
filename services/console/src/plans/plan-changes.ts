/** What a plans file would change, and the one transaction that changes it. */
import type { ControlStore, FieldIssue, FileProblem, Mode, SqlRunner } from "@tallyhouse/domain";
import {
  applyContract,
  bundleMeterIssues,
  contentDigest,
  diffPlans,
  type KnownMeter,
  type Plan,
  planDigest,
  type PlanDifference,
  type PlansFile,
  resolveMeters,
} from "@tallyhouse/plans";
import { writeAudit } from "../admin-audit.ts";
import { type Problem } from "../problem.ts";
import {
  type CatalogueKind,
  type CatalogueVersion,
  insertCatalogueVersion,
  newestOf,
  type PlanBody,
  readCatalogue,
  readCustomersOfPlans,
  readKnownMeters,
  readStandingContracts,
} from "./catalogue-store.ts";

/** One plan, bundle or list of endpoints against its newest version. */
export interface CatalogueChange {
  readonly kind: CatalogueKind;
  readonly key: string;
  /** `missing`: stored, but not in the file; it stays as it is. */
  readonly change: "new" | "new-version" | "none" | "missing";
  /** The version that holds after applying. */
  readonly version: number;
  /** What a new version changes; empty for the others. */
  readonly differences: readonly PlanDifference[];
}

/** A change with the version that it makes. */
interface PlannedChange extends CatalogueChange {
  readonly before: CatalogueVersion | null;
  readonly body: object | null;
  readonly digest: string;
}

/** A file as it was read, with the lines of its fields. */
export interface GivenFile {
  readonly file: PlansFile;
  readonly at: (issue: FieldIssue) => FileProblem;
}

/** Changes, or why none is made: all problems at once. */
export type ChangesOutcome =
  | { readonly kind: "changes"; readonly changes: readonly CatalogueChange[] }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Who changes plans, why and when. */
export interface ChangeCause {
  readonly actor: string;
  readonly reason: string;
  readonly now: number;
}

const ENDPOINTS_KEY = "endpoints";
/** A plan with a mistake breaks the contract of every customer who has one: some are enough to see it. */
const CONTRACT_PROBLEMS_MAX = 20;

/** What applying the file would change. */
export async function diffCatalogue(
  store: SqlRunner,
  mode: Mode,
  given: GivenFile & { readonly now: number },
): Promise<ChangesOutcome> {
  const outcome = await planCatalogue(store, mode, given);
  return outcome.kind === "problem" ? outcome : { kind: "changes", changes: outcome.changes.map(shown) };
}

/**
 * Stores a new version of everything that differs from its newest one, with a row of the audit log for each, in one transaction: never
 * a part of a file. Safe to repeat: yes, equal content changes nothing. Two callers at once: the transactions are serializable, the
 * second one sees the first one's versions.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function applyCatalogue(
  control: ControlStore,
  mode: Mode,
  input: GivenFile & ChangeCause,
): Promise<ChangesOutcome> {
  const { actor, reason, now } = input;
  return control.transaction(async (tx): Promise<ChangesOutcome> => {
    const outcome = await planCatalogue(tx, mode, input);
    if (outcome.kind === "problem") return outcome;
    for (const { kind, key, version, digest, body, before, ...planned } of outcome.changes) {
      if (body === null || planned.change === "none") continue;
      // Never before its predecessor, whatever another console's clock said: what rates a period is found by these instants.
      const createdAt = Math.max(now, before?.createdAt ?? 0);
      await insertCatalogueVersion(tx, mode, { kind, key, version, digest, body, createdAt, createdBy: actor });
      const change = { action: `${kind}.apply`, subject: { kind, id: key }, before: before?.body ?? null, after: body };
      await writeAudit(tx, { mode, at: now, actor, reason, ...change });
    }
    return { kind: "changes", changes: outcome.changes.map(shown) };
  });
}

function shown({ kind, key, change, version, differences }: PlannedChange): CatalogueChange {
  return { kind, key, change, version, differences };
}

type Planned =
  | { readonly kind: "changes"; readonly changes: readonly PlannedChange[] }
  | Extract<ChangesOutcome, { kind: "problem" }>;

async function planCatalogue(
  store: SqlRunner,
  mode: Mode,
  { file, at, now }: GivenFile & { readonly now: number },
): Promise<Planned> {
  const versions = await readCatalogue(store, mode);
  const meters = await readKnownMeters(store, mode, now);
  const changes = changesOf(file, versions, meters);
  const keysOf = (change: CatalogueChange["change"]): string[] =>
    changes.filter((each) => each.kind === "plan" && each.change === change).map(({ key }) => key);
  const customers = { mode, now };
  const missing = await readCustomersOfPlans(store, {
    ...customers,
    plans: keysOf("missing"),
    isWithoutContract: false,
  });
  const converted = changes.filter(isOtherCurrency).map(({ key }) => key);
  const paid = await readCustomersOfPlans(store, { ...customers, plans: converted, isWithoutContract: false });
  const open = file.plans.filter(isOpen).map(({ key }) => key);
  const helpless = await readCustomersOfPlans(store, { ...customers, plans: open, isWithoutContract: true });
  const contracts = await readStandingContracts(store, { mode, plans: keysOf("new-version"), now });
  const problem = refusalOf([
    { code: "PLANS_INVALID", status: 400, problems: meterIssues(file, meters).map(at) },
    { code: "PLAN_ITEM_METER_CHANGED", status: 409, problems: changedMeters(file, versions).map(at) },
    {
      code: "PLAN_IN_USE",
      status: 409,
      problems: [...customersMissing(missing), ...customersConverted(paid), ...customersHelpless(helpless)].map(at),
    },
    { code: "PLAN_BREAKS_CONTRACT", status: 409, problems: brokenContracts(file, contracts).map(at) },
  ]);
  return problem === null ? { kind: "changes", changes } : { kind: "problem", problem };
}

/** Whether only a contract makes it whole. */
function isOpen({ price, limits, items }: Plan): boolean {
  return price === "custom" || limits === "custom" || items === "custom";
}

/** Whether a plan would be in another currency than before. */
function isOtherCurrency({ kind, before, body }: PlannedChange): boolean {
  if (kind !== "plan" || before === null || body === null) return false;
  return (before.body as PlanBody).plan.currency !== (body as PlanBody).plan.currency;
}

function peopleOf(count: number): string {
  return count === 1 ? "1 customer is" : `${count} customers are`;
}

function customersMissing(customers: ReadonlyMap<string, number>): FieldIssue[] {
  return [...customers].map(([key, count]) => {
    return { path: ["plans"], rule: `"${key}" is missing, and ${peopleOf(count)} on it: keep it, or move them first` };
  });
}

function customersConverted(customers: ReadonlyMap<string, number>): FieldIssue[] {
  return [...customers].map(([key, count]) => {
    const rule = `is another than before, and ${peopleOf(count)} on it: a customer's currency never changes`;
    return { path: ["plans", key, "currency"], rule };
  });
}

function customersHelpless(customers: ReadonlyMap<string, number>): FieldIssue[] {
  return [...customers].map(([key, count]) => {
    const rule = `has custom fields, and ${peopleOf(count)} on it without a contract: make their contracts first`;
    return { path: ["plans", key], rule };
  });
}

/** The first code that has problems, with the problems of all. */
function refusalOf(
  refusals: readonly { code: Problem["code"]; status: number; problems: readonly FileProblem[] }[],
): Problem | null {
  const first = refusals.find(({ problems }) => problems.length > 0);
  if (first === undefined) return null;
  const problems = refusals.flatMap((refusal) => refusal.problems).toSorted((a, b) => a.line - b.line);
  const count = problems.length === 1 ? "a problem" : `${problems.length} problems`;
  return {
    status: first.status,
    code: first.code,
    detail: `the plans file has ${count}; nothing was changed`,
    problems,
  };
}

function meterIssues(file: PlansFile, meters: ReadonlyMap<string, KnownMeter>): FieldIssue[] {
  const below = (prefix: readonly string[], issues: readonly FieldIssue[]): FieldIssue[] =>
    issues.map(({ path, rule }) => ({ path: [...prefix, ...path], rule }));
  return [
    ...file.plans.flatMap(({ key, items }) => below(["plans", key], resolveMeters(items, meters).issues)),
    ...Object.entries(file.bundles).flatMap(([key, bundle]) =>
      below(["bundles", key], bundleMeterIssues(bundle, meters)),
    ),
  ];
}

/** An item means one meter for ever: bills, counters and Stripe's prices of the past go by its key. */
function changedMeters(file: PlansFile, versions: readonly CatalogueVersion[]): FieldIssue[] {
  const used = new Map<string, { meter: string; version: number }>();
  for (const { kind, key, version, body } of versions) {
    const items = kind === "plan" ? (body as PlanBody).plan.items : "custom";
    if (items === "custom") continue;
    for (const [itemKey, { meter }] of Object.entries(items)) used.set(`${key} ${itemKey}`, { meter, version });
  }
  return file.plans.flatMap(({ key, items }) => {
    if (items === "custom") return [];
    return Object.entries(items).flatMap(([itemKey, { meter }]) => {
      const before = used.get(`${key} ${itemKey}`);
      if (before === undefined || before.meter === meter) return [];
      const rule = `was "${before.meter}" in version ${before.version}: an item never changes its meter; give it another key`;
      return [{ path: ["plans", key, "items", itemKey, "meter"], rule }];
    });
  });
}

/** A contract is rated over every later version of its plan, so a version that it does not fit is not made. */
function brokenContracts(
  { plans, endpoints }: PlansFile,
  contracts: Awaited<ReturnType<typeof readStandingContracts>>,
): FieldIssue[] {
  const byKey = new Map(plans.map((plan) => [plan.key, plan]));
  const issues = contracts.flatMap(({ customer, plan: key, version, overrides }) => {
    const plan = byKey.get(key);
    if (plan === undefined) return [];
    const reading = applyContract(plan, overrides, { endpoints, plans });
    if (reading.kind === "plan") return [];
    return reading.issues.map(({ path, rule }) => ({
      path: ["plans", key],
      rule: `contract ${version} of customer "${customer}" would not fit: ${path.map(String).join(".")} ${rule}`,
    }));
  });
  return issues.slice(0, CONTRACT_PROBLEMS_MAX);
}

function changesOf(
  { plans, endpoints, bundles }: PlansFile,
  versions: readonly CatalogueVersion[],
  meters: ReadonlyMap<string, KnownMeter>,
): PlannedChange[] {
  const newest = newestOf(versions);
  const changes = plans.map((plan) => {
    const { meterVersions } = resolveMeters(plan.items, meters);
    const digest = planDigest(plan, meterVersions);
    return changeOf({ kind: "plan", key: plan.key, body: { plan, meterVersions }, digest }, newest);
  });
  const isListed = endpoints.length > 0 || newest.has(`endpoints ${ENDPOINTS_KEY}`);
  if (isListed)
    changes.push(
      changeOf({ kind: "endpoints", key: ENDPOINTS_KEY, body: endpoints, digest: contentDigest(endpoints) }, newest),
    );
  for (const [key, bundle] of Object.entries(bundles))
    changes.push(changeOf({ kind: "bundle", key, body: bundle, digest: contentDigest(bundle) }, newest));
  const given = new Set(changes.map(({ kind, key }) => `${kind} ${key}`));
  for (const [name, known] of newest) {
    const { kind, key, version, digest } = known;
    if (!given.has(name))
      changes.push({ kind, key, change: "missing", version, differences: [], before: known, body: null, digest });
  }
  return changes;
}

function changeOf(
  made: { readonly kind: CatalogueKind; readonly key: string; readonly body: object; readonly digest: string },
  newest: ReadonlyMap<string, CatalogueVersion>,
): PlannedChange {
  const before = newest.get(`${made.kind} ${made.key}`);
  if (before === undefined) return { ...made, change: "new", version: 1, differences: [], before: null };
  const { version, digest, body } = before;
  if (digest === made.digest) return { ...made, change: "none", version, differences: [], before };
  const differences = diffPlans(comparable(body), comparable(made.body));
  return { ...made, change: "new-version", version: version + 1, differences, before };
}

/** A plan's fields stand beside its meter versions, so that they are told by their own names. */
function comparable(body: unknown): unknown {
  const { plan, ...rest } = body as Partial<PlanBody>;
  return plan === undefined ? body : { ...plan, ...rest };
}
