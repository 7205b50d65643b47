export { chooseDefinition, isBackfilling, type MeterDefinition, readDefinitions } from "./meter-definitions.ts";
export { type MeterPlace, placeOf, type StreamSize } from "./meter-places.ts";
export type { Refusal, UsageGroup, UsageQuestion } from "./question.ts";
export {
  type CustomersQuestion,
  type CustomersReading,
  type CustomerTotal,
  readCustomerTotals,
} from "./read-customers.ts";
export {
  type CustomerGroup,
  customerBytes,
  CUSTOMERS_BYTES_MAX,
  readTotalsOfMany,
  type TotalsQuestion,
  type TotalsReading,
} from "./read-totals.ts";
export { readUsageGroups, type UsageReading } from "./read-usage.ts";
export {
  cutOf,
  type LateUsage,
  lateUsage,
  readSeal,
  readSealedTotals,
  readVersionVector,
  sealDigest,
  type SealedQuestion,
  type SealedReading,
  type SealedStream,
  type SealedTotals,
  type SealState,
  sealText,
} from "./seal.ts";
export type { CustomerSpan, DimensionFilter } from "./rollup-query.ts";
export { type Part, quantityOfDecimal, Tally } from "./tally.ts";
export { readWatermark } from "./watermark.ts";
export {
  bucketOf,
  formatLocal,
  readZone,
  USAGE_WINDOWS,
  UTC,
  type UsageWindow,
  type Zone,
  type ZoneReading,
  type ZoneSegment,
} from "./zone.ts";
