export type { Interval, Plan, PlanItem, PlanLimits, PlanVersion } from "./plan.ts";
export {
  addMonths,
  type Assignment,
  type BillingHistory,
  type BillingPeriod,
  boundaryAfter,
  type ContractVersion,
  periodAt,
  type PeriodBoundary,
  periodsOf,
  type Span,
} from "./periods.ts";
