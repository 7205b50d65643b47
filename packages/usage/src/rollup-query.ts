/** The queries over the rollups: bound values, the whole primary key in the condition, one row per bucket and group. */
import { type Aggregation, type AnalyticsStore, DAY_MS, type MeterVersion, type Mode } from "@tallyhouse/domain";
import type { UsageWindow, Zone } from "./zone.ts";

/** One customer's stretch. */
export interface CustomerSpan {
  readonly customer: string;
  readonly fromAt: number;
  readonly toAt: number;
}

/** Dimension → the values that count; every one must match. Empty: everything. */
export type DimensionFilter = Readonly<Record<string, readonly string[]>>;

/** Whole windows of one meter version. */
export interface RollupRange {
  readonly mode: Mode;
  /** null: all customers, or those of `spans`. */
  readonly customer: string | null;
  /** When given, only these customers, each once and each in its own whole windows within `[fromAt, toAt)`. */
  readonly spans?: readonly CustomerSpan[];
  /** Names of declared dimensions. */
  readonly where?: DimensionFilter;
  readonly version: MeterVersion;
  /** Multiples of 15 minutes, half-open. */
  readonly fromAt: number;
  readonly toAt: number;
  /** Only what was booked before this cut; null: everything. */
  readonly cutAt: number | null;
}

/** One customer's windows in which a usage event was voided. */
export interface CorrectedWindows {
  readonly customer: string;
  /** Epoch seconds, ascending. */
  readonly starts: readonly number[];
}

/** A question to the rollups. */
export interface RollupQuestion extends RollupRange {
  /** When given, only these customers. With them or `spans` each customer is a group: its name comes before the values of `groupBy`. */
  readonly customers?: readonly string[];
  /** Names of declared dimensions. */
  readonly groupBy: readonly string[];
  readonly window: UsageWindow;
  readonly zone: Zone;
  readonly rowsMax: number;
  /** Windows that are left out, because they are answered from raw usage events. */
  readonly without: readonly CorrectedWindows[];
  /** For `unique_count`: hashes to look for, decimal text. At most {@link HASHES_PER_QUERY_MAX}. */
  readonly hashes: readonly string[];
}

/** One bucket and group of them. */
export interface RollupRow {
  /** First window of the bucket that holds usage, epoch seconds: it names the bucket. */
  readonly firstWindow: string;
  /** Values in the order of `groupBy`. */
  readonly groupValues: readonly string[];
  /** Decimal text. */
  readonly quantity: string;
  /** (occurredAt, stream, partition, offset) of the newest usage event for `latest`; empty otherwise. */
  readonly newest: readonly string[];
  /** Which of the hashes asked for are among those counted; empty for every aggregation but `unique_count`. */
  readonly known: readonly string[];
}

/** Hashes and corrected windows travel in a URL, which ClickHouse takes up to 1 MiB: 10,000 hashes are 420 kB there. */
export const HASHES_PER_QUERY_MAX = 10_000;
/** Bytes of names and numbers of corrected windows in one question, for the same reason. */
export const CORRECTED_BYTES_MAX = 400_000;

/** A usage event may be booked before it occurred, by MAX_AHEAD_SECONDS, which is at most a day; a day more to be dull. */
export const BOOKED_BEFORE_MAX_MS = 2 * DAY_MS;
/** A second thread costs more than it saves on one customer's few granules; a question about all customers gains from it. */
const ONE_THREAD = "SETTINGS max_threads = 1";

/**
 * How each aggregation joins cumulative rollup rows. sum and count are differences, so voided usage events are out of them already;
 * nothing can be un-maxed, so the others see windows without voids alone (`without`).
 */
export const QUANTITY_SQL: Readonly<Record<Aggregation, string>> = {
  sum: "toString(sum(r.sumQty))",
  count: "toString(toInt64(sum(r.counted)) - toInt64(sum(r.voided)))",
  min: "toString(minIf(r.minQty, r.counted > 0))",
  max: "toString(maxIf(r.maxQty, r.counted > 0))",
  latest: "toString(argMaxIf(r.lastQty, (r.lastAt, r.stream, r.logPartition, r.lastOffset), r.counted > 0))",
  unique_count: "toString(uniqExact(r.valueHash))",
};
const NEWEST_SQL =
  "maxIf((toUnixTimestamp64Milli(r.lastAt), toInt64(r.stream), toInt64(r.logPartition), toInt64(r.lastOffset)), r.counted > 0)";
const KNOWN_SQL =
  "arrayMap(hash -> toString(hash), groupUniqArrayIf(r.valueHash, r.valueHash IN {hashes:Array(UInt128)}))";

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

/** Where an aggregation is read from. rollup_uniq holds a set, so unmerged copies of a row change nothing there. */
export function sourceOf(aggregation: Aggregation): string {
  return aggregation === "unique_count" ? "rollup_uniq AS r" : "rollup AS r FINAL";
}

/** A row exists where usage events still count; every hash of a window without voids does. */
export function havingOf(aggregation: Aggregation): string {
  return aggregation === "unique_count" ? "" : "HAVING sum(r.counted) > sum(r.voided)";
}

/** The condition of a range: the primary key in its order, then the months (partitions) that can hold it, then the cut. */
export function rangeSql({ customer, spans, where, version, cutAt }: RollupRange): string {
  return `r.mode = {mode:String}${customer === null ? "" : " AND r.customer = {customer:String}"}${spansSql(spans)}
       AND r.meter = {meter:String} AND r.meterVersion = {version:UInt16}
       AND r.windowStart >= toDateTime({fromSeconds:UInt32}, 'UTC')
       AND r.windowStart < toDateTime({toSeconds:UInt32}, 'UTC')
       AND r.bookedStart >= toDateTime({bookedFromSeconds:UInt32}, 'UTC')${
         cutAt === null ? "" : " AND r.bookedStart < {cut:DateTime('UTC')}"
       }${whereSql(version, where)}`;
}

function isOfOne({ customer, spans }: RollupRange): boolean {
  return customer !== null || spans?.length === 1;
}

/** The customers, and their own bounds where these are not those of all: a look-up of the row's customer in the two lists. */
function spansSql(spans: readonly CustomerSpan[] | undefined): string {
  if (spans === undefined) return "";
  const customers = " AND r.customer IN {spanCustomers:Array(String)}";
  if (haveOneSpan(spans)) return customers;
  const boundOf = (list: string): string =>
    `transform(r.customer, {spanCustomers:Array(String)}, {${list}:Array(UInt32)}, toUInt32(0))`;
  return `${customers} AND toUnixTimestamp(r.windowStart) >= ${boundOf("spanFroms")}
       AND toUnixTimestamp(r.windowStart) < ${boundOf("spanTos")}`;
}

function haveOneSpan(spans: readonly CustomerSpan[]): boolean {
  return spans.every(({ fromAt, toAt }) => fromAt === spans[0]?.fromAt && toAt === spans[0].toAt);
}

/** Positions of declared dimensions become text, values are bound. */
function whereSql(version: MeterVersion, where: DimensionFilter = {}): string {
  const dimensions = Object.keys(version.rule.dimensions);
  return Object.keys(where)
    .map((name, index) => ` AND r.dims[${dimensions.indexOf(name) + 1}] IN {where${index}:Array(String)}`)
    .join("");
}

function spanParameters(spans: readonly CustomerSpan[] | undefined): Record<string, unknown> {
  if (spans === undefined) return {};
  return {
    spanCustomers: spans.map(({ customer }) => customer),
    ...(haveOneSpan(spans)
      ? {}
      : {
          spanFroms: spans.map(({ fromAt }) => fromAt / 1_000),
          spanTos: spans.map(({ toAt }) => toAt / 1_000),
        }),
  };
}

/** The values of {@link rangeSql}. */
export function rangeParameters(range: RollupRange): Record<string, unknown> {
  const { mode, customer, version, cutAt } = range;
  return {
    mode,
    ...(customer === null ? {} : { customer }),
    meter: version.meter,
    version: version.version,
    fromSeconds: range.fromAt / 1_000,
    toSeconds: range.toAt / 1_000,
    bookedFromSeconds: Math.max(0, range.fromAt - BOOKED_BEFORE_MAX_MS) / 1_000,
    ...spanParameters(range.spans),
    ...Object.fromEntries(Object.values(range.where ?? {}).map((values, index) => [`where${index}`, values])),
    ...cutParameter(cutAt),
  };
}

/** The value of `{cut:DateTime('UTC')}`: whole seconds, as every cut is. */
export function cutParameter(cutAt: number | null): Record<string, string> {
  return cutAt === null ? {} : { cut: new Date(cutAt).toISOString().slice(0, 19).replace("T", " ") };
}

/** Leaves corrected windows out of the rows of `r`. Bound as flat arrays, because no list of lists can be. */
export function withoutSql(without: readonly CorrectedWindows[]): string {
  if (without.length === 0) return "";
  return ` AND (r.customer, toUnixTimestamp(r.windowStart)) NOT IN (
         SELECT corrected.1 AS customer, arrayJoin(arraySlice({withoutStarts:Array(UInt32)}, corrected.2, corrected.3)) AS start
         FROM (SELECT arrayJoin(arrayZip({withoutCustomers:Array(String)}, {withoutFirsts:Array(UInt32)},
           {withoutCounts:Array(UInt32)})) AS corrected))`;
}

/** The values of {@link withoutSql}: each customer's part of all starts by its first position, counted from 1, and its length. */
export function withoutParameters(without: readonly CorrectedWindows[]): Record<string, unknown> {
  if (without.length === 0) return {};
  let first = 1;
  const firsts = without.map(({ starts }) => {
    first += starts.length;
    return first - starts.length;
  });
  return {
    withoutCustomers: without.map(({ customer }) => customer),
    withoutStarts: without.flatMap(({ starts }) => starts),
    withoutFirsts: firsts,
    withoutCounts: without.map(({ starts }) => starts.length),
  };
}

/**
 * The windows of the range in which a usage event was voided, by customer; null when there are too many for one question.
 *
 * Not FINAL: `voided` is cumulative and never falls, so a row of any version that has one tells of a void that is stored.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function selectCorrectedWindows(
  analytics: AnalyticsStore,
  range: RollupRange,
): Promise<readonly CorrectedWindows[] | null> {
  const rows = await analytics.select<{ customer: string; starts: readonly number[] }>(
    `SELECT r.customer AS customer, arraySort(groupUniqArray(toUnixTimestamp(r.windowStart))) AS starts
     FROM rollup AS r
     WHERE ${rangeSql(range)} AND r.voided > 0
     GROUP BY customer ORDER BY customer LIMIT ${CORRECTED_BYTES_MAX / 10}
     ${isOfOne(range) ? ONE_THREAD : ""}`,
    rangeParameters(range),
  );
  let bytes = 0;
  // Ten digits and an encoded comma for each window; four quotes and commas, encoded, for each name.
  for (const { customer, starts } of rows) bytes += encodeURIComponent(customer).length + 12 + 13 * starts.length;
  return bytes > CORRECTED_BYTES_MAX ? null : rows;
}

/**
 * One row per bucket and group with usage, in no order, at most `rowsMax`.
 *
 * FINAL keeps the highest `ver` of each key, so what an earlier flush or a replay wrote adds nothing. The condition is the primary
 * key in its order: one customer's question reads that customer's granules. Values are bound; only constants of this file and
 * positions of declared dimensions become text of the statement.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export function selectRollups(analytics: AnalyticsStore, question: RollupQuestion): Promise<RollupRow[]> {
  const { version, zone, window, without, hashes, customers } = question;
  const { aggregation } = version.rule;
  const dimensions = Object.keys(version.rule.dimensions);
  const values = question.groupBy.map((name) => `r.dims[${dimensions.indexOf(name) + 1}]`);
  if (customers !== undefined || question.spans !== undefined) values.unshift("r.customer");
  const isUnique = aggregation === "unique_count";
  return analytics.select<RollupRow>(
    `WITH arrayLastIndex(startAt -> startAt <= toUnixTimestamp(r.windowStart), {starts:Array(Int64)}) AS segment
     SELECT toString(min(toUnixTimestamp(r.windowStart))) AS firstWindow,
       CAST([${values.join(", ")}], 'Array(String)') AS groupValues,
       ${QUANTITY_SQL[aggregation]} AS quantity,
       ${aggregation === "latest" ? NEWEST_SQL : "[]"} AS newest,
       ${isUnique && hashes.length > 0 ? KNOWN_SQL : "[]"} AS known
     FROM ${sourceOf(aggregation)}
     WHERE ${rangeSql(question)}${withoutSql(without)}
       ${customers === undefined ? "" : "AND r.customer IN {customers:Array(String)}"}
     GROUP BY ${BUCKET_SQL[window]}, groupValues
     ${havingOf(aggregation)}
     LIMIT {rowsMax:UInt32}
     ${isOfOne(question) ? ONE_THREAD : ""}`,
    {
      ...rangeParameters(question),
      ...withoutParameters(without),
      ...(customers === undefined ? {} : { customers }),
      ...(isUnique && hashes.length > 0 ? { hashes: hashes.map(BigInt) } : {}),
      starts: zone.segments.map(({ startAt }) => Math.max(0, startAt) / 1_000),
      offsets: zone.segments.map(({ offsetMs }) => offsetMs / 1_000),
      rowsMax: question.rowsMax,
    },
  );
}
