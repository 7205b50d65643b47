export { applyContract, type ContractContext, type ContractReading, declaredOf } from "./contract.ts";
export type {
  Bundle,
  EndpointRule,
  Interval,
  MinuteLimit,
  Plan,
  PlanItem,
  PlanLimits,
  PlansFile,
  PlanVersion,
} from "./plan.ts";
export { burstOf } from "./plan-rules.ts";
export {
  contentDigest,
  contractedPlan,
  differenceText,
  diffPlans,
  planDigest,
  type PlanDifference,
  ratedPlanOf,
} from "./plan-version.ts";
export { bundleMeterIssues, type KnownMeter, type MeterResolution, resolveMeters } from "./meter-rules.ts";
export { parsePlansFile, type PlansFileReading } from "./plans-file.ts";
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
