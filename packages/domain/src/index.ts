export { assert, InvariantError, unreachable } from "./assert.ts";
export {
  ERROR_CODES,
  type ErrorAction,
  type ErrorCode,
  PROBLEM_CODES,
  type ProblemCode,
  REJECTION_CODES,
  type RejectionCode,
  TallyhouseError,
} from "./errors.ts";
export type { EventLog, LogBounds, LogEntry, LogRecord, LogSubscriber, OpenedEventLog } from "./event-log.ts";
export { murmur2, partitionOfKey } from "./murmur2.ts";
export type { AnalyticsStore, AnalyticsValue, ControlStore, SqlRunner } from "./stores.ts";
