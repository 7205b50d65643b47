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
