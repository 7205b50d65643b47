export { meterVersion, quantity, usageEvent } from "./builders.ts";
export { MemoryLog } from "./memory-log.ts";
export { until } from "./until.ts";
export { describeAnalyticsStore, type OpenedAnalyticsStore } from "./analytics-store-suite.ts";
export { type ControlStoreUnderTest, describeControlStore } from "./control-store-suite.ts";
export {
  eventLogContract,
  type EventLogUnderTest,
  LogCollector,
  logRecord,
  numberedRecords,
  valuesOf,
} from "./event-log-suite.ts";
export { Dice } from "./dice.ts";
export { settled, VirtualTime } from "./virtual-time.ts";
export { type Guarantee, Violation } from "./violation.ts";
