/** Billing periods: which plan version rates which span of a customer's time. */
import type { Plan, PlanVersion } from "./plan.ts";

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
  /** Deep: objects merge, everything else replaces. */
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
  /** The newest version applied at or before the start, or the first one. */
  readonly version: PlanVersion;
  readonly contract: ContractVersion | null;
  /** The plan of the version with the contract applied. */
  readonly plan: Plan;
}
