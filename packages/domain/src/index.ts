export { assert, InvariantError, unreachable } from "./assert.ts";
export {
  CONTROL_HEADER,
  CONTROL_MAC_HEADER,
  type ControlFact,
  type ControlKey,
  controlKeyOf,
  type ControlReading,
  decodeControl,
  encodeControl,
  isControl,
  readCorrectedEvent,
} from "./control.ts";
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
export { createDigester, type EventDigests, partitionOfEvent, recordKeyOf } from "./identity.ts";
export {
  canonicalJson,
  compilePointer,
  isJsonObject,
  isRawNumber,
  type JsonObject,
  parseJson,
  pointerOf,
  textOfJson,
} from "./json.ts";
export {
  type Aggregation,
  AGGREGATIONS,
  type CompiledMeter,
  compileMeter,
  type DeclaredMeter,
  type Contribution,
  DIMENSION_BYTES_MAX,
  meterDigest,
  type MeterRule,
  MeterRuleSchema,
  type MeterVersion,
  uniqueHashOf,
} from "./meter.ts";
export { type MetersFileReading, parseMetersFile } from "./meters-file.ts";
export { murmur2, partitionOfKey } from "./murmur2.ts";
export { type PlainEvent, PlainEventReader } from "./plain-event.ts";
export { PlainRecordWriter } from "./plain-record.ts";
export {
  formatQuantity,
  ONE_QUANTITY,
  parseQuantity,
  type Quantity,
  quantityFromScaled,
  quantityOfJson,
  ZERO_QUANTITY,
} from "./quantity.ts";
export { decodeUsageRecord, RECORD_BYTES_MAX, usageRecordBytes } from "./record.ts";
export { type Authenticator, modeOfServiceToken, type Principal } from "./service-token.ts";
export type { AnalyticsStore, AnalyticsValue, ControlStore, SqlRunner } from "./stores.ts";
export { BACKFILL_SPAN_MS, type StreamIdentity, type StreamPredecessor } from "./stream.ts";
export {
  ceilTo,
  DAY_MS,
  floorTo,
  formatInstant,
  HOUR_MS,
  MINUTE_MS,
  parseInstant,
  utcMonthOf,
  WINDOW_MS,
  windowStartOf,
} from "./time.ts";
export {
  CloudEventSchema,
  encodeUsageEvent,
  type EventReading,
  type Mode,
  NativeEventSchema,
  readUsageEvent,
  type Rejection,
  USAGE_EVENT_LIMITS,
  type UsageEvent,
} from "./usage-event.ts";
export {
  type FieldIssue,
  type FieldPath,
  fieldOf,
  type FileProblem,
  inOrder,
  issuesOf,
  readYaml,
  type YamlReading,
} from "./yaml-file.ts";
