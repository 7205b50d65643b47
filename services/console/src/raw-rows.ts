/** What the log's fold stored of one identity: every record that carried it, whatever became of it. */
import { type AnalyticsStore, type Mode, NativeEventSchema } from "@tallyhouse/domain";

/** What makes a usage event what it is. */
export interface EventIdentity {
  readonly mode: Mode;
  readonly customer: string;
  readonly source: string;
  readonly id: string;
}

/** The parts of an identity that a request names, with the limits and the default of every usage event. */
export const IdentityPartsSchema = NativeEventSchema.pick({ customer: true, source: true, id: true });

/**
 * UTF-16 units of a source or id in a path: 256 of them, each at most 9 characters when percent-encoded (a pair of surrogates takes
 * 12). The router's own limit is 100.
 */
export const PATH_PARAMETER_MAX = 256 * 9;

/** Where a record stands in the log. */
export interface LogPlace {
  readonly stream: number;
  readonly partition: number;
  readonly offset: number;
}

export function placeText({ stream, partition, offset }: LogPlace): string {
  return `${stream}/${partition}/${offset}`;
}

export type RawStatus =
  | "counted"
  | "duplicate"
  | "conflict"
  | "too_late"
  | "too_early"
  | "invalid"
  | "redirected"
  | "control";

/** One stored record. Instants in epoch milliseconds. */
export interface RawRow extends EventIdentity, LogPlace {
  readonly type: string;
  readonly occurredAt: number;
  readonly receivedAt: number;
  readonly bookedAt: number;
  readonly status: RawStatus;
  readonly reason: string;
  /** `data` as JSON text where it counted or was a copy; the whole record where it was too late, too early or redirected; else base64. */
  readonly payload: string;
}

const ROW_COLUMNS = `toUInt32(stream) AS stream, toUInt32(logPartition) AS partition, toString(logOffset) AS offset,
  toString(mode) AS mode, customer, toString(source) AS source, id, toString(type) AS type,
  toString(toUnixTimestamp64Milli(occurredAt)) AS occurredMs, toString(toUnixTimestamp64Milli(receivedAt)) AS receivedMs,
  toString(toUnixTimestamp64Milli(bookedAt)) AS bookedMs, toString(status) AS status, toString(reason) AS reason, payload`;

interface SqlRow extends EventIdentity {
  readonly stream: number;
  readonly partition: number;
  readonly offset: string;
  readonly type: string;
  readonly occurredMs: string;
  readonly receivedMs: string;
  readonly bookedMs: string;
  readonly status: RawStatus;
  readonly reason: string;
  readonly payload: string;
}

/** The statement of {@link readRawRows}, for its test of the index as well. */
export const RAW_ROWS_SQL = `SELECT ${ROW_COLUMNS} FROM raw_events
  WHERE raw_events.mode = {mode:String} AND raw_events.customer = {customer:String} AND raw_events.id = {id:String}
    AND raw_events.source = {source:String} AND ({status:String} = '' OR toString(raw_events.status) = {status:String})
  ORDER BY raw_events.bookedAt, raw_events.stream, raw_events.logPartition, raw_events.logOffset
  LIMIT 1 BY raw_events.stream, raw_events.logPartition, raw_events.logOffset
  LIMIT {rowsMax:UInt32}`;

/**
 * Records of an identity in the order in which they were booked, at most `rowsMax`.
 *
 * Not FINAL: copies that a replay wrote are equal (check A2), and FINAL may keep the bloom index on `id` from skipping
 * granules; one copy of each place is taken instead.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readRawRows(
  analytics: AnalyticsStore,
  identity: EventIdentity,
  options: { readonly status?: RawStatus; readonly rowsMax: number },
): Promise<RawRow[]> {
  const { mode, customer, source, id } = identity;
  const { status = "", rowsMax } = options;
  const rows = await analytics.select<SqlRow>(RAW_ROWS_SQL, { mode, customer, source, id, status, rowsMax });
  return rows.map(({ occurredMs, receivedMs, bookedMs, offset, ...row }) => ({
    ...row,
    offset: Number(offset),
    occurredAt: Number(occurredMs),
    receivedAt: Number(receivedMs),
    bookedAt: Number(bookedMs),
  }));
}
