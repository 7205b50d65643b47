export {
  buildAdjustment,
  buildStatement,
  type ItemCount,
  type PlanName,
  planNameOf,
  type StatementFacts,
} from "./build-statement.ts";
export { countPeriod, type PeriodCount, type PeriodQuestion, type SealedUsage } from "./count-period.ts";
export { compileItemOf, EventsDigest, eventTuple, type EventTuple, type MeteredItem } from "./event-digest.ts";
export {
  exportEnd,
  exportHead,
  exportLine,
  exportStatement,
  type ItemEvent,
  type StatementPage,
  type StatementPart,
  walkStatement,
} from "./export-statement.ts";
export {
  type LineDifference,
  type LineFigures,
  statementDigest,
  type StatementDifference,
  type StatementDocument,
  statementId,
  type StatementRule,
  statementText,
  type StatementTotal,
} from "./statement.ts";
export {
  listStatements,
  readStatement,
  readStatementsOfPeriod,
  type StatementCursor,
  type StoredStatement,
} from "./statement-store.ts";
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
