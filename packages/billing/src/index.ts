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
