/** The one query over the rollups: bound values, the whole primary key in the condition, one row per bucket and group. */
import type { Aggregation, AnalyticsStore, MeterVersion, Mode } from "@tallyhouse/domain";
import type { UsageWindow, Zone } from "./zone.ts";

export interface RollupQuestion {
  readonly mode: Mode;
  /** null: all customers together. */
  readonly customer: string | null;
  readonly version: MeterVersion;
  /** Names of declared dimensions. */
  readonly groupBy: readonly string[];
  /** Multiples of 15 minutes, half-open. */
  readonly fromAt: number;
  readonly toAt: number;
  readonly window: UsageWindow;
  readonly zone: Zone;
  readonly rowsMax: number;
}

export interface RollupRow {
  /** First window of the bucket that holds usage, epoch seconds: it names the bucket. */
  readonly firstWindow: string;
  /** Values in the order of `groupBy`. */
  readonly groupValues: readonly string[];
  /** Decimal text. */
  readonly quantity: string;
  /** (occurredAt, stream, partition, offset) of the newest usage event for `latest`; empty otherwise. */
  readonly newest: readonly string[];
}

/**
 * How each aggregation joins cumulative rollup rows; a count is of the usage events that still count. min, max and latest with
 * voided usage events will need counted_events instead (nothing can be un-maxed); no void exists in this version.
 */
export const QUANTITY_SQL: Readonly<Record<Aggregation, string>> = {
  sum: "toString(sum(r.sumQty))",
  count: "toString(sum(r.counted) - sum(r.voided))",
  min: "toString(minIf(r.minQty, r.counted > 0))",
  max: "toString(maxIf(r.maxQty, r.counted > 0))",
  latest: "toString(argMaxIf(r.lastQty, (r.lastAt, r.stream, r.logPartition, r.lastOffset), r.counted > 0))",
  unique_count: "toString(0)",
};
const NEWEST_SQL =
  "maxIf((toUnixTimestamp64Milli(r.lastAt), toInt64(r.stream), toInt64(r.logPartition), toInt64(r.lastOffset)), r.counted > 0)";

/** The bucket of a window by the offsets we pass: the database's own copy of the zone rules takes no part. */
const LOCAL_SECONDS = "(toUnixTimestamp(r.windowStart) + {offsets:Array(Int64)}[segment])";
const BUCKET_SQL: Readonly<Record<UsageWindow, string>> = {
  "15m": "r.windowStart",
  // An hour ends where the clock is changed, so the segment is a part of its key.
  hour: `(segment, intDiv(${LOCAL_SECONDS}, 3600))`,
  day: `intDiv(${LOCAL_SECONDS}, 86400)`,
  month: `toYYYYMM(toDate(toUInt16(intDiv(${LOCAL_SECONDS}, 86400))))`,
  // Text, because a number here would be the position of a column.
  total: "''",
};

/**
 * One row per bucket and group with usage, in no order, at most `rowsMax`.
 *
 * FINAL keeps the highest `ver` of each key, so what an earlier flush or a replay wrote adds nothing. The condition is the primary
 * key in its order: one customer's question reads that customer's granules. Values are bound; only constants of this file and
 * positions of declared dimensions become text of the statement.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export function selectRollups(analytics: AnalyticsStore, question: RollupQuestion): Promise<RollupRow[]> {
  const { version, zone, window, customer } = question;
  const dimensions = Object.keys(version.rule.dimensions);
  const values = question.groupBy.map((name) => `r.dims[${dimensions.indexOf(name) + 1}]`);
  return analytics.select<RollupRow>(
    `WITH arrayLastIndex(startAt -> startAt <= toUnixTimestamp(r.windowStart), {starts:Array(Int64)}) AS segment
     SELECT toString(min(toUnixTimestamp(r.windowStart))) AS firstWindow,
       CAST([${values.join(", ")}], 'Array(String)') AS groupValues,
       ${QUANTITY_SQL[version.rule.aggregation]} AS quantity,
       ${version.rule.aggregation === "latest" ? NEWEST_SQL : "[]"} AS newest
     FROM rollup AS r FINAL
     WHERE r.mode = {mode:String}${customer === null ? "" : " AND r.customer = {customer:String}"}
       AND r.meter = {meter:String} AND r.meterVersion = {version:UInt16}
       AND r.windowStart >= toDateTime({fromSeconds:UInt32}, 'UTC')
       AND r.windowStart < toDateTime({toSeconds:UInt32}, 'UTC')
     GROUP BY ${BUCKET_SQL[window]}, groupValues
     HAVING sum(r.counted) > sum(r.voided)
     LIMIT {rowsMax:UInt32}`,
    {
      mode: question.mode,
      ...(customer === null ? {} : { customer }),
      meter: version.meter,
      version: version.version,
      fromSeconds: question.fromAt / 1_000,
      toSeconds: question.toAt / 1_000,
      starts: zone.segments.map(({ startAt }) => Math.max(0, startAt) / 1_000),
      offsets: zone.segments.map(({ offsetMs }) => offsetMs / 1_000),
      rowsMax: question.rowsMax,
    },
  );
}
