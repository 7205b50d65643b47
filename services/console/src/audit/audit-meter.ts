/**
 * Check A4, generated for each meter version: every stored rollup row against the raw rows it must come from.
 *
 * A rollup row states the fold of its partition's first `ver` records. It is judged when those records and the cut's say the same about
 * its key: its booking window ended before the cut, so that nothing can touch it any more, or its `ver` is not above the cut, so that
 * a later touch would have left a later row. What a writer stored ahead of `progress` is left to the next audit.
 */
import { type AuditCut, type AuditedMeter, instantOf, type MeterPlace } from "./audit-cut.ts";
import { literal, rawSql, READERS } from "./audit-json.ts";
import { type Slice, sliceSql } from "./audit-slices.ts";

/** No end: beyond every DateTime64. Epoch milliseconds. */
const NEVER_MS = 9_000_000_000_000_000;
/** Beyond every offset. */
const NO_OFFSET = Number.MAX_SAFE_INTEGER;

/** Statements of A4 for one meter version: its rollup rows, and for unique_count the set of its texts. */
export function meterStatements(cut: AuditCut, meter: AuditedMeter, slice: Slice): string[] {
  if (!meter.places.some((place) => cut.partitions.some(({ partition }) => partition === place.partition))) return [];
  const statements = [rollupStatement(cut, meter, slice)];
  if (meter.rule.aggregation === "unique_count") statements.push(uniqueStatement(cut, meter, slice));
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
  const rows = cut.partitions.map(
    ({ partition, nextOffset, clockAt, counted, isKept }) =>
      `(${partition}, ${nextOffset}, ${clockAt}, ${counted}, ${Number(isKept)})`,
  );
  const columns = "logPartition UInt16, nextOffset UInt64, clockAt Int64, counted UInt64, isKept UInt8";
  return `SELECT * FROM values('${columns}', ${rows.join(", ")})`;
}

/**
 * Which rows the meter version may take, per stream and partition: of this stream those below the cut, in lane 1 those before its
 * activation; of predecessors all, in lane 1, where a version that this stream activated was backfilled. Those took no notice of its end.
 */
function activeSql(cut: AuditCut, places: readonly MeterPlace[]): string {
  const { streamId, bookingWindowSeconds: window, predecessors } = cut.stream;
  const rows = places.flatMap((place) => {
    const { partition, offset, untilAt, isBackfilled, isInherited } = place;
    const below = cut.partitions.find((each) => each.partition === partition);
    if (below === undefined) return [];
    const clock = Math.floor(below.clockAt / 1_000);
    const booked = Math.floor(place.bookedAt / 1_000);
    const rowOf = (stream: number, own: { from: number; until: number; below: number; open: number }): string =>
      `(${stream}, ${partition}, ${own.from}, ${booked - (booked % window)}, ${own.until}, ${Number(isBackfilled)}, ${own.below}, ${own.open})`;
    const before = isInherited ? [] : predecessors.filter(({ partitionCount }) => partition < partitionCount);
    return [
      rowOf(streamId, {
        from: offset,
        until: untilAt ?? NEVER_MS,
        below: below.nextOffset,
        open: clock - (clock % window),
      }),
      ...before.map((each) => rowOf(each.streamId, { from: NO_OFFSET, until: NEVER_MS, below: NO_OFFSET, open: 0 })),
    ];
  });
  const columns =
    "stream UInt16, logPartition UInt16, activeFrom UInt64, activeBooked Int64, untilMs Int64, isBackfilled UInt8, nextOffset UInt64, openWindow Int64";
  return `SELECT * FROM values('${columns}', ${rows.join(", ")})`;
}

/**
 * What the raw rows and the corrections below the cut contribute to the meter version, one row each:
 * sign 1 counts in lane 0, or in lane 1 when the meter was activated after it; sign -1 takes back, at the booking of the correction.
 */
function contributionsSql(cut: AuditCut, meter: AuditedMeter, slice: Slice): string {
  const { rule } = meter;
  const dimensions = Object.values(rule.dimensions);
  const isUnique = rule.aggregation === "unique_count";
  const isValued = rule.value !== undefined && !isUnique;
  const values = rule.value === undefined ? [] : [rule.value];
  const pointers = [...new Set([...dimensions, ...rule.where.map(({ path }) => path), ...values])];
  const raw = (pointer: string): string => `raw${pointers.indexOf(pointer)}`;
  const raws = pointers.map((pointer) => `${rawSql("json", pointer)} AS ${raw(pointer)}`);
  const conditions = [
    ...rule.where.map((condition) => conditionSql(condition, raw(condition.path))),
    `atMs >= ${instantOf(rule.from)}`,
    "atMs < untilMs",
    // Older rows may have expired: lane 0 is judged by its booking, lane 1 by its usage.
    `if(lane = 0, bookedStart, intDiv(atMs, 900000) * 900) >= ${cut.keptFrom}`,
    ...values.map(() => "value IS NOT NULL"),
  ];
  const value = values.map((pointer) => `${isValued ? "quantityOf" : "textOf"}(${raw(pointer)}) AS value`);
  const amount = isValued ? "assumeNotNull(value)" : `toDecimal128(${isUnique ? 0 : 1}, 9)`;
  const hash = isUnique ? "reinterpretAsUInt128(substring(SHA256(assumeNotNull(value)), 1, 16))" : "toUInt128(0)";
  const texts = dimensions.map((pointer) => `dimension(ifNull(textOf(${raw(pointer)}), ''))`);
  // One SELECT around the other, because the analyzer of ClickHouse resolves an alias anew wherever it is used.
  return `
  SELECT customer, intDiv(atMs, 900000) * 900 AS windowStart, CAST([${texts.join(", ")}], 'Array(String)') AS dims,
    stream, logPartition, lane, bookedStart, sign, atMs, logOffset, isRequired, ${amount} AS amount, ${hash} AS valueHash
  FROM (
    SELECT ${["*", ...value].join(", ")}
    FROM (SELECT ${["*", ...raws].join(", ")} FROM (${sourceSql(cut, meter, slice)})))
  WHERE ${conditions.join("\n    AND ")}`;
}

/** The counted rows and the corrections that a meter version may take, with their JSON. */
function sourceSql(cut: AuditCut, meter: AuditedMeter, slice: Slice): string {
  const { bookingWindowSeconds: window } = cut.stream;
  const { rule } = meter;
  const streams = streamsOf(cut).join(", ");
  const windowOf = (seconds: string): string => `intDiv(${seconds}, ${window}) * ${window}`;
  const ofRows = sliceSql(slice, {
    customer: "r.customer",
    spread: "intDiv(toUnixTimestamp64Milli(r.occurredAt), 900000)",
  });
  const ofCorrections = sliceSql(slice, { customer: "customer", spread: "intDiv(atMs, 900000)" });
  return `
    SELECT r.stream AS stream, r.customer AS customer, exact(r.payload) AS json, toUnixTimestamp64Milli(r.occurredAt) AS atMs,
      r.logPartition AS logPartition, r.logOffset AS logOffset, a.untilMs AS untilMs, 1 AS sign,
      toUInt8(r.logOffset < a.activeFrom) AS lane, toUInt8(lane = 0 OR a.isBackfilled) AS isRequired,
      if(lane = 0, ${windowOf("toInt64(toUnixTimestamp(r.bookedAt))")}, a.activeBooked) AS bookedStart
    FROM raw_events AS r FINAL INNER JOIN active AS a ON a.stream = r.stream AND a.logPartition = r.logPartition
    WHERE r.stream IN (${streams}) AND r.mode = ${literal(meter.mode)} AND r.type = ${literal(rule.eventType)}
      AND r.status = 'counted' AND r.logOffset < a.nextOffset${ofRows}
      -- What was taken back before the meter was there is not in its backfill.
      AND (r.stream, r.logPartition, r.logOffset) NOT IN (
        SELECT v.stream, v.logPartition, toUInt64OrZero(v.target) FROM control_records AS v INNER JOIN active AS b
          ON b.stream = v.stream AND b.logPartition = v.logPartition
        WHERE v.kind IN ('void', 'replace') AND v.logOffset < b.activeFrom)
    UNION ALL
    SELECT stream, JSONExtractString(event, 'subject') AS customer, JSONExtractRaw(event, 'data') AS json,
      toUnixTimestamp64Milli(parseDateTime64BestEffort(JSONExtractString(event, 'time'), 3, 'UTC')) AS atMs,
      logPartition, logOffset, untilMs, -1 AS sign, 0 AS lane, 1 AS isRequired, bookedStart
    FROM (
      SELECT v.stream AS stream, exact(JSONExtractString(v.body, 'event')) AS event, v.logPartition AS logPartition, v.logOffset AS logOffset,
        a.untilMs AS untilMs, ${windowOf("toInt64(toUnixTimestamp(v.bookedAt))")} AS bookedStart
      FROM control_records AS v FINAL INNER JOIN active AS a ON a.stream = v.stream AND a.logPartition = v.logPartition
      WHERE v.kind IN ('void', 'replace')
        AND v.logOffset < a.nextOffset AND v.logOffset > a.activeFrom)
    WHERE if(JSONHas(event, 'mode'), JSONExtractString(event, 'mode'), 'live') = ${literal(meter.mode)}
      AND JSONExtractString(event, 'type') = ${literal(rule.eventType)}${ofCorrections}`;
}

/** What a rollup row says, in the order of `expected` and `stored`. */
const RESULTS = ["counted", "voided", "sumQty", "minQty", "maxQty", "lastQty", "lastMs", "lastOffset"];

/** Rollup rows of the meter version that its contributions do not give, and contributions without a row. */
function rollupStatement(cut: AuditCut, meter: AuditedMeter, slice: Slice): string {
  const key = "customer, windowStart, dims, stream, logPartition, lane, bookedStart";
  const tupleOf = (side: string): string => `(${RESULTS.map((name) => `${side}.${name}`).join(", ")})`;
  const ofRows = sliceSql(slice, { customer: "r.customer", spread: "intDiv(toUnixTimestamp(r.windowStart), 900)" });
  return `
WITH ${READERS},
active AS (${activeSql(cut, meter.places)}),
contributions AS (${contributionsSql(cut, meter, slice)})
SELECT ${literal(meter.mode)} AS mode, ${literal(meter.meter)} AS meter, ${meter.version} AS meterVersion, customer,
  toDateTime(windowStart, 'UTC') AS windowStart, dims, stream, logPartition, lane, toDateTime(bookedStart, 'UTC') AS bookedStart,
  expected, stored, ver
FROM (
  SELECT ${key}, u.ver AS ver, u.isThere AS isThere, e.isMissed AS isMissed, ${tupleOf("e")} AS expected, ${tupleOf("u")} AS stored
  FROM (
    SELECT ${key}, max(isRequired) AS isMissed,
      countIf(sign = 1) AS counted, countIf(sign = -1) AS voided, sum(if(sign = 1, amount, -amount)) AS sumQty,
      minIf(amount, sign = 1) AS minQty, maxIf(amount, sign = 1) AS maxQty,
      -- The latest by instant, then by offset: one number is compared several times faster than a pair.
      argMaxIf(amount, bitShiftLeft(toInt128(atMs), 64) + logOffset AS place, sign = 1) AS lastQty,
      maxIf(atMs, sign = 1) AS lastMs, toUInt64(bitAnd(maxIf(place, sign = 1), toInt128(18446744073709551615))) AS lastOffset
    FROM contributions
    GROUP BY ${key}) AS e
  FULL JOIN (
    SELECT r.customer AS customer, toInt64(toUnixTimestamp(r.windowStart)) AS windowStart, r.dims AS dims,
      r.stream AS stream, r.logPartition AS logPartition, r.lane AS lane, toInt64(toUnixTimestamp(r.bookedStart)) AS bookedStart, 1 AS isThere, ver,
      counted, voided, sumQty, minQty, maxQty, lastQty, toUnixTimestamp64Milli(lastAt) AS lastMs, lastOffset
    FROM rollup AS r FINAL
    WHERE r.stream IN (${streamsOf(cut).join(", ")}) AND (r.lane = 1 OR r.stream = ${cut.stream.streamId})
      AND r.mode = ${literal(meter.mode)} AND r.meter = ${literal(meter.meter)}
      AND r.meterVersion = ${meter.version}${ofRows}
      AND (r.lane = 0 AND r.bookedStart >= toDateTime(${cut.keptFrom}, 'UTC')
        OR r.lane != 0 AND r.windowStart >= toDateTime(${cut.keptFrom}, 'UTC'))) AS u
  USING (${key})
  WHERE ${RESULTS.map((name) => `e.${name} != u.${name}`).join(" OR ")}) AS k
INNER JOIN active AS a ON a.stream = k.stream AND a.logPartition = k.logPartition
WHERE if(k.lane = 0, k.bookedStart < a.openWindow OR ver <= a.nextOffset, isThere OR isMissed)`;
}

function streamsOf({ stream }: AuditCut): number[] {
  return [stream.streamId, ...stream.predecessors.map(({ streamId }) => streamId)];
}

/** Rows of rollup_uniq that no contribution gives, and texts without a row. The set has no partitions and no versions. */
function uniqueStatement(cut: AuditCut, meter: AuditedMeter, slice: Slice): string {
  const { partitionCount, bookingWindowSeconds: window } = cut.stream;
  const clocks = cut.partitions.map(({ clockAt }) => Math.floor(clockAt / 1_000));
  const clock = clocks.length < partitionCount ? 0 : Math.min(...clocks);
  // What predecessors booked of a version that was theirs is not judged here.
  const judgedFrom = meter.places.some(({ isInherited }) => isInherited) ? cut.inheritedUntil + 1 : 0;
  return `
WITH ${READERS},
active AS (${activeSql(cut, meter.places)}),
contributions AS (${contributionsSql(cut, meter, slice)})
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
      AND u.windowStart >= toDateTime(${cut.keptFrom}, 'UTC')${sliceSql(slice, { customer: "u.customer", spread: "intDiv(toUnixTimestamp(u.windowStart), 900)" })})
  GROUP BY customer, windowStart, dims, valueHash, bookedStart)
-- A row of a booking window that some partition has not left may belong to records above the cut.
WHERE (isRequired AND NOT isStored) OR (isStored AND NOT isCounted AND bookedStart >= ${judgedFrom} AND bookedStart < ${clock - (clock % window)})`;
}

/** Values are compared as text; an absent one is never equal to anything. */
function conditionSql(condition: AuditedMeter["rule"]["where"][number], raw: string): string {
  if (condition.exists !== undefined) return `(${raw} NOT IN ('', 'null')) = ${condition.exists}`;
  const wanted = condition.in ?? [condition.equals ?? ""];
  return `ifNull(textOf(${raw}) IN (${wanted.map(literal).join(", ")}), false)`;
}
