export {
  eventLogContract,
  type EventLogUnderTest,
  LogCollector,
  logRecord,
  numberedRecords,
  valuesOf,
} from "./event-log-suite.ts";
