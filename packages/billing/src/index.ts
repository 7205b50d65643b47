export {
  type CountedItem,
  type CountedPeriod,
  type PeriodReading,
  readPeriodTotals,
  readPeriodTotalsOfMany,
  type TotalsContext,
} from "./period-totals.ts";
