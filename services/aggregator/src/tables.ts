/** The tables the aggregator writes (infra/clickhouse): names, columns in the order of our rows, and row builders. */
import type { AnalyticsValue, StreamIdentity } from "@tallyhouse/domain";

/** One row: values in the order of the table's columns. */
export type Row = readonly AnalyticsValue[];

/** Tables that hold results; `progress` is written apart, after all of them. */
export const RESULT_COLUMNS = {
  raw_events: [
    "stream",
    "logPartition",
    "logOffset",
    "mode",
    "customer",
    "source",
    "id",
    "type",
    "occurredAt",
    "receivedAt",
    "bookedAt",
    "decidedAt",
    "status",
    "reason",
    "payloadHash",
    "payload",
  ],
  identities: ["stream", "logPartition", "fpHigh", "fpLow", "logOffset", "bookedAt", "payloadCheck"],
  rollup: [
    "mode",
    "customer",
    "meter",
    "meterVersion",
    "windowStart",
    "dims",
    "stream",
    "logPartition",
    "lane",
    "bookedStart",
    "ver",
    "counted",
    "voided",
    "sumQty",
    "minQty",
    "maxQty",
    "lastQty",
    "lastAt",
    "lastOffset",
  ],
  rollup_uniq: ["mode", "customer", "meter", "meterVersion", "windowStart", "dims", "valueHash", "bookedStart"],
  control_records: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
} as const;
export type ResultTable = keyof typeof RESULT_COLUMNS;
export const RESULT_TABLES = Object.keys(RESULT_COLUMNS) as readonly ResultTable[];

/** Position of `status` in a raw row, for counting rows by status. */
export const RAW_STATUS_COLUMN = RESULT_COLUMNS.raw_events.indexOf("status");

export const PROGRESS_COLUMNS = [
  "stream",
  "logPartition",
  "nextOffset",
  "logClock",
  "lastRecord",
  "counted",
  "writer",
  "storedAt",
] as const;

/** What became of a record; every offset has exactly one. */
export type RecordStatus =
  | "counted"
  | "duplicate"
  | "conflict"
  | "too_late"
  | "too_early"
  | "invalid"
  | "redirected"
  | "control";

/** How far a partition is folded: the row that lets a restart begin there. */
export interface ProgressRow {
  readonly partition: number;
  /** The prefix: records below it are stored. */
  readonly nextOffset: number;
  /** The partition's log clock (bookedAt) after that prefix, epoch milliseconds. */
  readonly logClockAt: number;
  /** Hash of the record before nextOffset; 0n when the stream starts here. */
  readonly lastRecord: bigint;
  /** Usage events counted in the prefix. */
  readonly counted: number;
}

/** A version's cumulative row of one rollup key. Quantities are scaled bigints. */
export interface RollupValues {
  /** Contributions added, and contributions taken back; min, max and last are of the added ones and valid where there are any. */
  counted: number;
  voided: number;
  sumQty: bigint;
  minQty: bigint;
  maxQty: bigint;
  lastQty: bigint;
  /** Epoch milliseconds. */
  lastAt: number;
  lastOffset: number;
}

/** The key of a rollup row within its stream and partition; lane 0. Instants in epoch seconds. */
export interface RollupKey {
  readonly mode: "live" | "test";
  readonly customer: string;
  readonly meter: string;
  readonly meterVersion: number;
  readonly windowStart: number;
  readonly dims: readonly string[];
  readonly bookedStart: number;
}

/** Start, in epoch seconds, of the booking window holding the log clock (epoch milliseconds). */
export function bookedStartOf(clockAt: number, stream: StreamIdentity): number {
  const seconds = Math.floor(clockAt / 1_000);
  return seconds - (seconds % stream.bookingWindowSeconds);
}
