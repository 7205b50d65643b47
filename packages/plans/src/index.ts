export type { Interval, Plan, PlanItem, PlanLimits, PlanVersion } from "./plan.ts";
export type { Assignment, BillingPeriod, ContractVersion } from "./periods.ts";
