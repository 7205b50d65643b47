export {
  type CountedItem,
  type CountedPeriod,
  type PeriodReading,
  readPeriodTotals,
  readPeriodTotalsOfMany,
  type TotalsContext,
} from "./period-totals.ts";
export {
  type BilledCustomer,
  type BillingState,
  countPlannedCustomers,
  listPlannedCustomers,
  readBillingState,
  readPlanVersions,
} from "./billing-state.ts";
export { type DailyReading, type DayUsage, localDateOf, localDayOf, readDailyUsage } from "./daily-usage.ts";
export { type ProjectedBill, type ProjectionReading, readProjection } from "./read-projection.ts";
export { type BillingPorts, readRunningBill, type RunningBill, type RunningReading } from "./running-bill.ts";
export { type Trial, type TrialPlan } from "./rerate.ts";
export {
  type CustomerLine,
  simulate,
  type SimulationLine,
  type SimulationQuestion,
  type SkippedLine,
} from "./simulate.ts";
export type { BucketChange, CurrencySummary, LargestChange, PlanChange } from "./simulation-summary.ts";
