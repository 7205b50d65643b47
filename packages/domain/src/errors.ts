/**
 * Every error code that Tallyhouse shows, one row each in docs/errors.md (tidy checks both ways).
 * Codes of a rejected usage event stand in {@link REJECTION_CODES}.
 */
export const ERROR_CODES = [
  "CONFIG_INVALID",
  "CONTROL_RECORD_INVALID",
  "DATA_FOLDER_IN_USE",
  "DEDUPE_MEMORY_EXCEEDED",
  "LOG_CORRUPT",
  "LOG_FULL",
  "LOG_GAP",
  "LOG_MISCONFIGURED",
  "LOG_RECORD_TOO_LARGE",
  "LOG_UNAVAILABLE",
  "METERS_INVALID",
  "MIGRATION_MISMATCH",
  "PORT_IN_USE",
  "STORE_UNAVAILABLE",
  "STORE_WRITES_LOST",
  "STREAM_CLOSED",
  "STREAM_MISMATCH",
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Why one usage event of a request was refused; the answer adds a JSON pointer. One row each in docs/errors.md. */
export const REJECTION_CODES = [
  "EVENT_NOT_AN_OBJECT",
  "FIELD_MISSING",
  "FIELD_INVALID",
  "FIELD_UNKNOWN",
  "FIELD_TOO_LONG",
  "EVENT_TOO_LARGE",
  "DATA_TOO_DEEP",
  "DATA_TOO_MANY_PROPERTIES",
  "NAME_FORBIDDEN",
  "TIME_INVALID",
  "MODE_MISMATCH",
] as const;
export type RejectionCode = (typeof REJECTION_CODES)[number];

/** Every code of an RFC 9457 problem document of the HTTP API, one row each in docs/errors.md. */
export const PROBLEM_CODES = [
  "AUDIT_RUNNING",
  "AUTH_FAILURES_LIMITED",
  "AUTH_REQUIRED",
  "AUTH_INVALID",
  "BODY_INVALID",
  "BODY_TOO_LARGE",
  "CHECK_BUSY",
  "CONSOLE_UNAVAILABLE",
  "CONTENT_ENCODING_UNSUPPORTED",
  "CONTENT_TYPE_UNSUPPORTED",
  "CONTRACT_NEEDED",
  "CORRECTION_CONFLICT",
  "CORRECTION_INVALID",
  "CUSTOMER_EXISTS",
  "CUSTOMER_INVALID",
  "CUSTOMER_UNKNOWN",
  "EVENTS_EXPIRED",
  "EVENTS_REJECTED",
  "EVENT_NOT_COUNTED",
  "EVENT_UNKNOWN",
  "GATEWAY_OVERLOADED",
  "GATEWAY_STOPPING",
  "IDEMPOTENCY_KEY_INVALID",
  "IDEMPOTENCY_KEY_MISMATCH",
  "INTERNAL",
  "LOG_FULL",
  "LOG_UNAVAILABLE",
  "LOOPBACK_ONLY",
  "METER_END_REFUSED",
  "METER_UNKNOWN",
  "METHOD_NOT_ALLOWED",
  "NOT_FOUND",
  "PERIOD_UNREADABLE",
  "PLANS_INVALID",
  "PLAN_BREAKS_CONTRACT",
  "PLAN_IN_USE",
  "PLAN_ITEM_METER_CHANGED",
  "PLAN_MISSING",
  "PLAN_UNKNOWN",
  "QUERY_INVALID",
  "REQUEST_INVALID",
  "REQUEST_TIMEOUT",
  "RERATE_INVALID",
  "RERATE_UNKNOWN",
  "RERATE_WAITING",
  "SIMULATE_BUSY",
  "STATEMENT_UNKNOWN",
  "STORE_UNAVAILABLE",
  "TOO_MANY_EVENTS",
  "USAGE_NOT_SEALED",
] as const;
export type ProblemCode = (typeof PROBLEM_CODES)[number];

/** What the one place that reacts does: try the same again, set the thing aside and go on, or stop and page. */
export type ErrorAction = "retry" | "dead-letter" | "halt";

/** An outage or a refusal of an outside system. `message` is for operators: what, where, what to do; never a secret. */
export class TallyhouseError extends Error {
  override readonly name = "TallyhouseError";
  readonly code: ErrorCode;
  readonly action: ErrorAction;

  constructor(input: { code: ErrorCode; action: ErrorAction; message: string; cause?: unknown }) {
    super(input.message, input.cause === undefined ? undefined : { cause: input.cause });
    this.code = input.code;
    this.action = input.action;
  }
}
