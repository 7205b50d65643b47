/**
 * Check A4, generated for each meter version: every stored rollup row against the raw rows it must come from.
 *
 * A rollup row states the fold of its partition's first `ver` records. It is judged when those records and the cut's say the same about
 * its key: its booking window ended before the cut, so that nothing can touch it any more, or its `ver` is not above the cut, so that
 * a later touch would have left a later row. What a writer stored ahead of `progress` is left to the next audit.
 */
import { type AuditCut, type AuditedMeter, instantOf, type MeterPlace } from "./audit-cut.ts";
import { existsSql, literal, READERS, withValues } from "./audit-json.ts";

/** Which part of a large set of customers a statement looks at: those whose hash leaves `bucket`. */
export interface Bucket {
  readonly bucket: number;
  readonly buckets: number;
}

/** No end: beyond every DateTime64. Epoch milliseconds. */
const NEVER_MS = 9_000_000_000_000_000;

/** Statements of A4 for one meter version: its rollup rows, and for unique_count the set of its texts. */
export function meterStatements(cut: AuditCut, meter: AuditedMeter, bucket: Bucket): string[] {
  if (meter.places.length === 0) return [];
  const statements = [rollupStatement(cut, meter, bucket)];
  if (meter.rule.aggregation === "unique_count") statements.push(uniqueStatement(cut, meter, bucket));
  return statements;
}

/** Rollup rows whose meter version was never activated in their partition: nothing could have counted them. */
export function unknownMetersStatement(cut: AuditCut): string {
  const { streamId } = cut.stream;
  const known = cut.meters.flatMap(({ mode, meter, version, places }) =>
    places.map(({ partition }) => `(${literal(mode)}, ${literal(meter)}, ${version}, ${partition})`),
  );
  return `
WITH cut AS (${cutSql(cut)})
SELECT toString(r.mode) AS mode, r.meter AS meter, r.meterVersion AS meterVersion, r.logPartition AS logPartition,
  count() AS rows, 'no activation below the cut' AS fault
FROM rollup AS r INNER JOIN cut AS c ON c.logPartition = r.logPartition
WHERE r.stream = ${streamId} AND r.ver <= c.nextOffset
  AND (toString(r.mode), r.meter, toUInt32(r.meterVersion), toUInt32(r.logPartition)) NOT IN [${known.join(", ") || "('', '', 0, 0)"}]
GROUP BY mode, meter, meterVersion, logPartition`;
}

/** The partitions of the cut as rows. Literal, so that the statement says by itself which prefix it judges. */
export function cutSql(cut: AuditCut): string {
  const { bookingWindowSeconds } = cut.stream;
  const rows = cut.partitions.map(({ partition, nextOffset, clockAt, counted, isKept }) => {
    const clock = Math.floor(clockAt / 1_000);
    return `(${partition}, ${nextOffset}, ${clock - (clock % bookingWindowSeconds)}, ${clockAt}, ${counted}, ${Number(isKept)})`;
  });
  const columns =
    "logPartition UInt16, nextOffset UInt64, openWindow Int64, clockAt Int64, counted UInt64, isKept UInt8";
  return `SELECT * FROM values('${columns}', ${rows.join(", ")})`;
}

/** Where each partition activated the meter version, with that partition's cut. */
function activeSql(places: readonly MeterPlace[]): string {
  const rows = places.map(
    ({ partition, offset, bookedAt, untilAt, isBackfilled }) =>
      `(${partition}, ${offset}, ${Math.floor(bookedAt / 1_000)}, ${untilAt ?? NEVER_MS}, ${Number(isBackfilled)})`,
  );
  const columns = "logPartition UInt16, activeFrom UInt64, activeBooked Int64, untilMs Int64, isBackfilled UInt8";
  return `SELECT p.*, c.nextOffset AS nextOffset, c.openWindow AS openWindow
    FROM values('${columns}', ${rows.join(", ")}) AS p INNER JOIN cut AS c ON c.logPartition = p.logPartition`;
}

/**
 * What the raw rows and the corrections below the cut contribute to the meter version, one row each:
 * sign 1 counts in lane 0, or in lane 1 when the meter was activated after it; sign -1 takes back, at the booking of the correction.
 */
function contributionsSql(cut: AuditCut, meter: AuditedMeter, { bucket, buckets }: Bucket): string {
  const { streamId, bookingWindowSeconds: window } = cut.stream;
  const { rule } = meter;
  const windowOf = (seconds: string): string => `intDiv(${seconds}, ${window}) * ${window}`;
  const dimensions = Object.values(rule.dimensions);
  const compared = rule.where.filter(({ exists }) => exists === undefined);
  const isUnique = rule.aggregation === "unique_count";
  const texts = [
    ...dimensions,
    ...compared.map(({ path }) => path),
    ...(isUnique && rule.value !== undefined ? [rule.value] : []),
  ];
  const isValued = rule.value !== undefined && !isUnique;
  const conditions = [
    ...compared.map((condition, index) => comparisonSql(condition, `texts[${dimensions.length + index + 1}]`)),
    ...rule.where.flatMap(({ path, exists }) =>
      exists === undefined ? [] : [`(${existsSql("json", path)}) = ${exists}`],
    ),
    `atMs >= ${instantOf(rule.from)}`,
    "atMs < untilMs",
    // Older rows may have expired: lane 0 is judged by its booking, lane 1 by its usage.
    `if(lane = 0, bookedStart, intDiv(atMs, 900000) * 900) >= ${cut.keptFrom}`,
    ...(isValued ? ["quantity IS NOT NULL"] : []),
    ...(isUnique ? ["texts[-1] IS NOT NULL"] : []),
  ];
  const amount = isValued ? "assumeNotNull(quantity)" : `toDecimal128(${isUnique ? 0 : 1}, 9)`;
  const source = `
    SELECT r.customer AS customer, exact(r.payload) AS json, toUnixTimestamp64Milli(r.occurredAt) AS atMs,
      r.logPartition AS logPartition, r.logOffset AS logOffset, a.untilMs AS untilMs, 1 AS sign,
      toUInt8(r.logOffset < a.activeFrom) AS lane, toUInt8(lane = 0 OR a.isBackfilled) AS isRequired,
      if(lane = 0, ${windowOf("toInt64(toUnixTimestamp(r.bookedAt))")}, ${windowOf("a.activeBooked")}) AS bookedStart
    FROM raw_events AS r FINAL INNER JOIN active AS a ON a.logPartition = r.logPartition
    WHERE r.stream = ${streamId} AND r.mode = ${literal(meter.mode)} AND r.type = ${literal(rule.eventType)}
      AND r.status = 'counted' AND r.logOffset < a.nextOffset${bucketSql("r.customer", { bucket, buckets })}
      -- What was taken back before the meter was there is not in its backfill.
      AND (r.logPartition, r.logOffset) NOT IN (
        SELECT v.logPartition, toUInt64OrZero(v.target) FROM control_records AS v INNER JOIN active AS b
          ON b.logPartition = v.logPartition
        WHERE v.stream = ${streamId} AND v.kind IN ('void', 'replace') AND v.logOffset < b.activeFrom)
    UNION ALL
    SELECT JSONExtractString(event, 'subject') AS customer, JSONExtractRaw(event, 'data') AS json,
      toUnixTimestamp64Milli(parseDateTime64BestEffort(JSONExtractString(event, 'time'), 3, 'UTC')) AS atMs,
      logPartition, logOffset, untilMs, -1 AS sign, 0 AS lane, 1 AS isRequired, bookedStart
    FROM (
      SELECT exact(JSONExtractString(v.body, 'event')) AS event, v.logPartition AS logPartition, v.logOffset AS logOffset,
        a.untilMs AS untilMs, ${windowOf("toInt64(toUnixTimestamp(v.bookedAt))")} AS bookedStart
      FROM control_records AS v FINAL INNER JOIN active AS a ON a.logPartition = v.logPartition
      WHERE v.stream = ${streamId} AND v.kind IN ('void', 'replace')
        AND v.logOffset < a.nextOffset AND v.logOffset > a.activeFrom)
    WHERE if(JSONHas(event, 'mode'), JSONExtractString(event, 'mode'), 'live') = ${literal(meter.mode)}
      AND JSONExtractString(event, 'type') = ${literal(rule.eventType)}${bucketSql("customer", { bucket, buckets })}`;
  const values = isValued ? { texts, value: rule.value } : { texts };
  return `
  SELECT customer, intDiv(atMs, 900000) * 900 AS windowStart,
    arrayMap(text -> dimension(ifNull(text, '')), arraySlice(texts, 1, ${dimensions.length})) AS dims,
    logPartition, lane, bookedStart, sign, atMs, logOffset, isRequired, ${amount} AS amount,
    ${isUnique ? "reinterpretAsUInt128(substring(SHA256(assumeNotNull(texts[-1])), 1, 16))" : "toUInt128(0)"} AS valueHash
  FROM (${withValues(source, values)})
  WHERE ${conditions.join("\n    AND ")}`;
}

/** Rollup rows of the meter version that its contributions do not give, and contributions without a row. */
function rollupStatement(cut: AuditCut, meter: AuditedMeter, bucket: Bucket): string {
  return `
WITH ${READERS},
cut AS (${cutSql(cut)}),
active AS (${activeSql(meter.places)}),
contributions AS (${contributionsSql(cut, meter, bucket)})
SELECT ${literal(meter.mode)} AS mode, ${literal(meter.meter)} AS meter, ${meter.version} AS meterVersion, customer,
  toDateTime(windowStart, 'UTC') AS windowStart, dims, logPartition, lane, toDateTime(bookedStart, 'UTC') AS bookedStart,
  expected, stored, ver
FROM (
  SELECT customer, windowStart, dims, logPartition, lane, bookedStart,
    max(isStored) AS isThere, max(rowVer) AS ver, max(isRequired) AS isMissed,
    (countIf(sign = 1), countIf(sign = -1), sumIf(amount, sign = 1) - sumIf(amount, sign = -1),
      minIf(amount, sign = 1), maxIf(amount, sign = 1), argMaxIf(amount, (atMs, logOffset), sign = 1),
      maxIf(atMs, sign = 1), maxIf((atMs, logOffset), sign = 1).2) AS expected,
    (maxIf(rowCounted, isStored), maxIf(rowVoided, isStored), sumIf(rowSum, isStored), sumIf(rowMin, isStored),
      sumIf(rowMax, isStored), sumIf(rowLast, isStored), maxIf(rowLastMs, isStored), maxIf(rowLastOffset, isStored)) AS stored
  FROM (
    SELECT customer, windowStart, dims, logPartition, lane, bookedStart, sign, amount, atMs, logOffset, isRequired, 0 AS isStored,
      toUInt64(0) AS rowVer, toUInt64(0) AS rowCounted, toUInt64(0) AS rowVoided, toDecimal128(0, 9) AS rowSum,
      toDecimal128(0, 9) AS rowMin, toDecimal128(0, 9) AS rowMax, toDecimal128(0, 9) AS rowLast, toInt64(0) AS rowLastMs,
      toUInt64(0) AS rowLastOffset
    FROM contributions
    UNION ALL
    SELECT u.customer, toInt64(toUnixTimestamp(u.windowStart)), u.dims, u.logPartition, u.lane,
      toInt64(toUnixTimestamp(u.bookedStart)), 0, toDecimal128(0, 9), toInt64(0), toUInt64(0), toUInt8(0), 1,
      u.ver, u.counted, u.voided, u.sumQty, u.minQty, u.maxQty, u.lastQty, toUnixTimestamp64Milli(u.lastAt), u.lastOffset
    FROM rollup AS u FINAL INNER JOIN active AS a ON a.logPartition = u.logPartition
    WHERE u.stream = ${cut.stream.streamId} AND u.mode = ${literal(meter.mode)} AND u.meter = ${literal(meter.meter)}
      AND u.meterVersion = ${meter.version}${bucketSql("u.customer", bucket)}
      AND (u.lane = 0 AND u.bookedStart >= toDateTime(${cut.keptFrom}, 'UTC')
        OR u.lane != 0 AND u.windowStart >= toDateTime(${cut.keptFrom}, 'UTC')))
  GROUP BY customer, windowStart, dims, logPartition, lane, bookedStart) AS k
INNER JOIN active AS a ON a.logPartition = k.logPartition
WHERE expected != stored
  AND if(lane = 0, k.bookedStart < a.openWindow OR ver <= a.nextOffset, isThere OR isMissed)`;
}

/** Rows of rollup_uniq that no contribution gives, and texts without a row. The set has no partitions and no versions. */
function uniqueStatement(cut: AuditCut, meter: AuditedMeter, bucket: Bucket): string {
  const { partitionCount, bookingWindowSeconds: window } = cut.stream;
  const clocks = cut.partitions.map(({ clockAt }) => Math.floor(clockAt / 1_000));
  const clock = clocks.length < partitionCount ? 0 : Math.min(...clocks);
  return `
WITH ${READERS},
cut AS (${cutSql(cut)}),
active AS (${activeSql(meter.places)}),
contributions AS (${contributionsSql(cut, meter, bucket)})
SELECT ${literal(meter.mode)} AS mode, ${literal(meter.meter)} AS meter, ${meter.version} AS meterVersion, customer,
  toDateTime(windowStart, 'UTC') AS windowStart, dims, toString(valueHash) AS valueHash,
  toDateTime(bookedStart, 'UTC') AS bookedStart, if(isStored, 'stored, not in the raw rows', 'not stored') AS fault
FROM (
  SELECT customer, windowStart, dims, valueHash, bookedStart, max(stored) AS isStored, max(counted) AS isCounted,
    max(required) AS isRequired
  FROM (
    SELECT customer, windowStart, dims, valueHash, bookedStart, 0 AS stored, 1 AS counted, isRequired AS required
    FROM contributions WHERE sign = 1 AND windowStart >= ${cut.keptFrom}
    UNION ALL
    SELECT u.customer, toInt64(toUnixTimestamp(u.windowStart)), u.dims, u.valueHash, toInt64(toUnixTimestamp(u.bookedStart)), 1, 0, 0
    FROM rollup_uniq AS u
    WHERE u.mode = ${literal(meter.mode)} AND u.meter = ${literal(meter.meter)} AND u.meterVersion = ${meter.version}
      AND u.windowStart >= toDateTime(${cut.keptFrom}, 'UTC')${bucketSql("u.customer", bucket)})
  GROUP BY customer, windowStart, dims, valueHash, bookedStart)
-- A row of a booking window that some partition has not left may belong to records above the cut.
WHERE (isRequired AND NOT isStored) OR (isStored AND NOT isCounted AND bookedStart < ${clock - (clock % window)})`;
}

function bucketSql(customer: string, { bucket, buckets }: Bucket): string {
  return buckets === 1 ? "" : ` AND cityHash64(${customer}) % ${buckets} = ${bucket}`;
}

/** Values are compared as text; an absent one is never equal to anything. */
function comparisonSql(condition: AuditedMeter["rule"]["where"][number], text: string): string {
  const wanted = condition.in ?? [condition.equals ?? ""];
  return `ifNull(${text} IN (${wanted.map(literal).join(", ")}), false)`;
}
