/**
 * Checks A1 to A3 and A5 to A8 as SQL: each statement returns the rows that differ, and none when all is well. A person can run the
 * texts by hand. They read nothing but the tables, and every one looks only at the prefix of the cut.
 */
import type { AuditCut } from "./audit-cut.ts";
import { READERS } from "./audit-json.ts";
import { cutSql } from "./audit-meter.ts";
import { type Slice, sliceSql } from "./audit-slices.ts";

/** So many offsets of a partition in a row, the n-th from 0 on. */
export interface Run {
  readonly partition: string;
  readonly run: string;
}
/** What differs row by row is looked for in the runs that are suspected as a whole: few, or none. */
const OFFSETS_PER_RUN = 16_384;

/** The condition that an offset is in one of the runs. */
function inRunsSql(runs: readonly Run[], table: string): string {
  const places = runs.map(({ partition, run }) => `(${partition}, ${run})`);
  return `(toUInt64(${table}.logPartition), intDiv(${table}.logOffset, ${OFFSETS_PER_RUN})) IN (${places.join(", ")})`;
}

/** Raw rows below the cut. Not FINAL: copies are a check's own subject, or make no difference to it. */
function rawSql(cut: AuditCut): string {
  return `raw_events AS r INNER JOIN cut AS c ON c.logPartition = r.logPartition
  WHERE r.stream = ${cut.stream.streamId} AND r.logOffset < c.nextOffset`;
}

/**
 * A1: every offset of the prefix has a row, within a day, from one day to the next, and from 0 on; a stream that goes on from another may
 * begin later.
 */
export function holesStatement(cut: AuditCut): string {
  const { stream } = cut;
  return `
WITH cut AS (${cutSql(cut)}),
days AS (
  SELECT r.logPartition AS logPartition, toDate(r.bookedAt) AS day, min(r.logOffset) AS firstOffset,
    max(r.logOffset) AS lastOffset, groupBitmap(r.logOffset) AS offsets
  FROM ${rawSql(cut)}
  GROUP BY logPartition, day)
SELECT d.logPartition AS logPartition, d.day AS day, firstOffset, lastOffset, offsets, wantedFirst, wantedLast
FROM (
  SELECT *, lagInFrame(toNullable(lastOffset)) OVER byDay + 1 AS wantedFirst,
    leadInFrame(toNullable(firstOffset)) OVER byDay - 1 AS wantedLast
  FROM days WINDOW byDay AS (PARTITION BY logPartition ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) AS d
INNER JOIN cut AS c ON c.logPartition = d.logPartition
WHERE lastOffset - firstOffset + 1 != offsets
  OR firstOffset != ifNull(wantedFirst, ${stream.predecessors.length === 0 ? "if(c.isKept, 0, firstOffset)" : "firstOffset"})
  OR lastOffset != ifNull(wantedLast, c.nextOffset - 1)
UNION ALL
SELECT logPartition, toDate(0), 0, 0, 0, NULL, nextOffset - 1 FROM cut
WHERE nextOffset > 0 AND clockAt >= ${cut.keptFrom} * 1000 AND logPartition NOT IN (SELECT logPartition FROM days)`;
}

/** Before A2: the runs that hold copies at all. */
export function copiedStatement(cut: AuditCut): string {
  return `
WITH cut AS (${cutSql(cut)})
SELECT toString(r.logPartition) AS partition, toString(intDiv(r.logOffset, ${OFFSETS_PER_RUN})) AS run
FROM ${rawSql(cut)}
GROUP BY partition, run HAVING count() > groupBitmap(r.logOffset)`;
}

/** A2: copies of one offset, as a replay writes them, are equal in every column. */
export function copiesStatement(cut: AuditCut, runs: readonly Run[]): string {
  return `
WITH cut AS (${cutSql(cut)})
SELECT logPartition, logOffset, count() AS copies, uniqExact(hash) AS different
FROM (
  SELECT r.logPartition AS logPartition, r.logOffset AS logOffset, sipHash128(r.*) AS hash
  FROM ${rawSql(cut)} AND ${inRunsSql(runs, "r")})
GROUP BY logPartition, logOffset HAVING different > 1`;
}

/**
 * A3: what became of every usage event, decided again from identities as text. In the order of offsets: one that was counted within the
 * horizon makes the next a duplicate, or a conflict when its payload differs; else too old is too late and too far ahead too early.
 * A replacement waives the age, and an occurredAt outside 1970 to 2200 is stored as 1970, so that both age verdicts are possible.
 * An identity lives in one partition. What a predecessor counted is known, and is not judged.
 *
 * Most identities have one row, counted and on time: that says all about them. Only the others are put in order.
 */
export function dedupeStatement(cut: AuditCut, slice: Slice): string {
  const { streamId, horizonSeconds, maxAgeSeconds, maxAheadSeconds } = cut.stream;
  const rows = identityRowsSql(cut, slice);
  const identity = "sipHash128(r.mode, r.customer, r.source, r.id)";
  const age = "(toInt64(toUnixTimestamp(r.bookedAt)) - toInt64(toUnixTimestamp(r.occurredAt)))";
  return `
WITH cut AS (${cutSql(cut)})
SELECT mode, customer, source, id, partitions, arrayMap(row -> row.2, seen) AS offsets,
  arrayMap(row -> row.3, seen) AS statuses, expected
FROM (
  SELECT toString(r.mode) AS mode, r.customer AS customer, r.source AS source, r.id AS id,
    groupUniqArrayIf(r.logPartition, r.stream = ${streamId}) AS partitions,
    arraySort(groupUniqArray((r.stream = ${streamId}, r.logOffset, toString(r.status), toInt64(toUnixTimestamp(r.bookedAt)),
      toInt64(toUnixTimestamp(r.occurredAt)), bitAnd(r.payloadHash, 4294967295), r.reason = 'replace'))) AS seen,
    arrayFold((known, row) -> multiIf(
        NOT row.1, (arrayPushBack(known.1, row.3), true, row.4, row.6),
        known.2 AND row.4 - known.3 <= ${horizonSeconds},
          (arrayPushBack(known.1, if(row.6 = known.4, 'duplicate', 'conflict')), known.2, known.3, known.4),
        row.5 = 0 AND row.3 IN ('too_late', 'too_early'), (arrayPushBack(known.1, row.3), known.2, known.3, known.4),
        row.4 - row.5 > ${maxAgeSeconds} AND NOT row.7,
          (arrayPushBack(known.1, 'too_late'), known.2, known.3, known.4),
        row.5 - row.4 > ${maxAheadSeconds}, (arrayPushBack(known.1, 'too_early'), known.2, known.3, known.4),
        (arrayPushBack(known.1, 'counted'), true, row.4, row.6)),
      seen, (CAST([], 'Array(String)'), false, toInt64(0), toUInt64(0))).1 AS expected
  FROM ${rows} AND ${identity} IN (
    SELECT ${identity} AS identity FROM ${rows}
    GROUP BY identity HAVING count() > 1
      OR NOT max(r.status = 'counted' AND ${age} BETWEEN -${maxAheadSeconds} AND ${maxAgeSeconds}))
  GROUP BY mode, customer, source, id)
WHERE statuses != expected OR length(partitions) > 1`;
}

/** Rows that say what became of an identity: those of the stream below the cut, and what its predecessors counted. */
function identityRowsSql({ stream }: AuditCut, slice: Slice): string {
  const before = stream.predecessors.map((each) => each.streamId);
  return `raw_events AS r LEFT JOIN cut AS c ON c.logPartition = r.logPartition
  WHERE ((r.stream = ${stream.streamId} AND r.logOffset < c.nextOffset
      AND r.status IN ('counted', 'duplicate', 'conflict', 'too_late', 'too_early'))
    OR (has(CAST([${before.join(", ")}], 'Array(UInt16)'), r.stream) AND r.status = 'counted'))${ofIdentities(slice)}`;
}

/** Of a slice, by the columns of `raw_events AS r`. */
function ofIdentities(slice: Slice): string {
  return sliceSql(slice, { customer: "r.customer", spread: "cityHash64(r.id)" });
}

/** A5, first half: `progress` counts what the raw rows count; they may be fewer where days have expired. */
export function countedStatement(cut: AuditCut): string {
  return `
WITH cut AS (${cutSql(cut)})
SELECT c.logPartition AS logPartition, c.nextOffset AS nextOffset, c.counted AS counted, s.stored AS stored
FROM cut AS c LEFT JOIN (
  SELECT r.logPartition AS logPartition, groupBitmapIf(r.logOffset, r.status = 'counted') AS stored
  FROM ${rawSql(cut)} GROUP BY logPartition) AS s ON s.logPartition = c.logPartition
WHERE if(c.isKept, stored != c.counted, stored > c.counted)`;
}

/** identities keep 45 days; two days of margin, as for raw_events. */
const IDENTITIES_KEPT_DAYS = 43;

/** Raw rows of counted usage events, and identities, below the cut and young enough to be there, as rows of one shape. */
function identityPairsSql(cut: AuditCut): string {
  const { streamId } = cut.stream;
  const kept = `toStartOfDay(now('UTC') - INTERVAL ${IDENTITIES_KEPT_DAYS} DAY)`;
  return `
    SELECT r.logPartition AS logPartition, r.logOffset AS logOffset, true AS isRaw, toUnixTimestamp(r.bookedAt) AS booked,
      toUInt32(bitAnd(r.payloadHash, 4294967295)) AS payloadCheck
    FROM ${rawSql(cut)} AND r.status = 'counted' AND r.bookedAt >= ${kept}
    UNION ALL
    SELECT i.logPartition, i.logOffset, false, toUnixTimestamp(i.bookedAt), i.payloadCheck
    FROM identities AS i INNER JOIN cut AS c ON c.logPartition = i.logPartition
    WHERE i.stream = ${streamId} AND i.logOffset < c.nextOffset AND i.bookedAt >= ${kept}`;
}

/**
 * Before A5's second half: runs where the raw rows and the identities do not have the same digest, which is the number of rows and the sum
 * of their 64-bit hashes. Copies on one side only make a run suspected.
 */
export function digestsStatement(cut: AuditCut): string {
  return `
WITH cut AS (${cutSql(cut)})
SELECT toString(logPartition) AS partition, toString(intDiv(logOffset, ${OFFSETS_PER_RUN})) AS run
FROM (SELECT *, sipHash64(logOffset, booked, payloadCheck) AS hash FROM (${identityPairsSql(cut)}))
GROUP BY partition, run
HAVING countIf(isRaw) != countIf(NOT isRaw) OR sumIf(hash, isRaw) != sumIf(hash, NOT isRaw)`;
}

/** A5, second half: one identity per counted usage event, of its offset, second and payload. */
export function identitiesStatement(cut: AuditCut, runs: readonly Run[]): string {
  return `
WITH cut AS (${cutSql(cut)})
SELECT logPartition, logOffset, raw, identities
FROM (
  SELECT logPartition, logOffset, groupUniqArrayIf((booked, payloadCheck), isRaw) AS raw,
    groupUniqArrayIf((booked, payloadCheck), NOT isRaw) AS identities
  FROM (${identityPairsSql(cut)}) AS p
  WHERE ${inRunsSql(runs, "p")}
  GROUP BY logPartition, logOffset)
WHERE raw != identities OR length(raw) > 1`;
}

/** A6: how far the tables go, as offsets of the log; what lies behind the log's end was folded from another log. */
export function reachStatement(streamId: number): string {
  const of = (table: string, next: string): string =>
    `SELECT logPartition, ${next} AS next, '${table}' AS place FROM ${table} WHERE stream = ${streamId} GROUP BY logPartition`;
  return `
SELECT toString(logPartition) AS partition, toString(max(next)) AS reach, argMax(place, next) AS place
FROM (
  ${of("rollup", "max(ver)")}
  UNION ALL ${of("raw_events", "max(logOffset) + 1")}
  UNION ALL ${of("identities", "max(logOffset) + 1")}
  UNION ALL ${of("control_records", "max(logOffset) + 1")}
  UNION ALL ${of("progress", "max(nextOffset)")})
GROUP BY logPartition`;
}

/**
 * A7: every misplaced record went to the partition where its identity belongs: there are at least as many rows of that identity with
 * another status, and there. The copy is in the log before `progress` passes the original, but its row may be above the cut: so the
 * rows of the target are counted without one, and only targets that are folded far enough are judged. A closed target refuses copies.
 * Rows in a partition that is not theirs are differences too.
 * @param folded partitions that are folded at least to where the log ended after the cut was taken
 */
export function redirectsStatement(cut: AuditCut, slice: Slice, folded: readonly number[]): string {
  const { streamId, partitionCount } = cut.stream;
  const home = `kafkaMurmurHash(concat(toString(r.mode), '/', r.customer, '/', r.source, '/', r.id)) % ${partitionCount}`;
  return `
WITH cut AS (${cutSql(cut)})
SELECT mode, customer, source, id, home, redirected, arrived, misplaced
FROM (
  SELECT toString(r.mode) AS mode, r.customer AS customer, r.source AS source, r.id AS id, any(${home}) AS home,
    uniqExactIf((r.logPartition, r.logOffset), r.status = 'redirected' AND r.logPartition != ${home}
      AND r.logOffset < c.nextOffset) AS redirected,
    uniqExactIf(r.logOffset, r.status != 'redirected' AND r.logPartition = ${home}) AS arrived,
    groupUniqArrayIf((r.logPartition, r.logOffset), (r.status = 'redirected') != (r.logPartition != ${home})) AS misplaced
  FROM raw_events AS r INNER JOIN cut AS c ON c.logPartition = r.logPartition
  WHERE r.stream = ${streamId} AND r.mode != 'none'${ofIdentities(slice)}
    AND (r.status = 'redirected' OR r.logPartition != ${home} OR (r.customer, r.id) IN (
      SELECT r.customer, r.id FROM raw_events AS r
      WHERE r.stream = ${streamId} AND r.status = 'redirected'${ofIdentities(slice)}))
  GROUP BY mode, customer, source, id)
WHERE notEmpty(misplaced) OR (arrived < redirected AND home IN [${folded.join(", ")}] AND home NOT IN (
  SELECT logPartition FROM control_records WHERE stream = ${streamId} AND kind = 'stream.close'))`;
}

/**
 * A8, first half: what a correction takes back is one counted row below it, with the stored payload, and is taken back once. Rows that
 * may have expired are not asked for: nothing occurs long after it is booked.
 */
export function voidsStatement(cut: AuditCut): string {
  const { streamId } = cut.stream;
  return `
WITH ${READERS},
cut AS (${cutSql(cut)}),
voids AS (
  SELECT v.logPartition AS logPartition, v.logOffset AS logOffset, v.kind AS kind, toUInt64OrZero(v.target) AS target,
    JSONExtractString(v.body, 'event') AS original, exact(original) AS event,
    toInt64(JSONExtractInt(v.body, 'offset')) AS named
  FROM control_records AS v FINAL INNER JOIN cut AS c ON c.logPartition = v.logPartition
  WHERE v.stream = ${streamId} AND v.kind IN ('void', 'replace') AND v.logOffset < c.nextOffset)
SELECT v.logPartition AS logPartition, v.logOffset AS logOffset, v.kind AS kind, v.target AS target, multiIf(
    v.times > 1, 'taken back more than once',
    v.named != v.target OR v.target >= v.logOffset, 'names another offset, or one behind itself',
    empty(t.customer), 'no such row',
    t.status != 'counted', concat('is ', t.status, ', not counted'),
    'is not the stored usage event') AS fault
FROM (SELECT *, count() OVER (PARTITION BY logPartition, target) AS times FROM voids) AS v
LEFT JOIN (
  SELECT r.logPartition AS logPartition, r.logOffset AS logOffset, toString(r.mode) AS mode, r.customer AS customer,
    r.source AS source, r.id AS id, r.type AS type, r.occurredAt AS occurredAt, toString(r.status) AS status,
    exact(r.payload) AS payload
  FROM raw_events AS r FINAL
  WHERE r.stream = ${streamId} AND (r.logPartition, r.logOffset) IN (SELECT logPartition, target FROM voids)) AS t
ON t.logPartition = v.logPartition AND t.logOffset = v.target
WHERE (times > 1 OR v.named != v.target OR v.target >= v.logOffset
  OR t.status != 'counted'
  OR (if(JSONHas(v.event, 'mode'), JSONExtractString(v.event, 'mode'), 'live'), JSONExtractString(v.event, 'subject'),
      JSONExtractString(v.event, 'source'), JSONExtractString(v.event, 'id'), JSONExtractString(v.event, 'type'),
      parseDateTime64BestEffortOrZero(JSONExtractString(v.event, 'time'), 3, 'UTC'),
      if(JSONHas(v.event, 'data'), JSONExtractRaw(v.event, 'data'), '{}'))
    != (t.mode, t.customer, t.source, t.id, t.type, t.occurredAt, JSONExtractRaw(t.payload)))
  AND parseDateTime64BestEffortOrZero(JSONExtractString(v.event, 'time'), 3, 'UTC') >= toDateTime(${cut.keptFrom}, 'UTC')`;
}

/**
 * A8, second half: control_records say what the log says. Each has the raw row of its offset, with the same text; and what the raw rows
 * activate, end, take back or close is in control_records. Repetitions leave a raw row only, so the second is asked per subject.
 */
export function controlsStatement(cut: AuditCut): string {
  const { streamId, predecessors } = cut.stream;
  // A log that is read again has control records of the stream before, which do nothing here.
  const own = predecessors.length === 0 ? "" : ` AND JSONExtractUInt(r.body, 'stream') = ${streamId}`;
  const subject = (text: string): string =>
    `concat(JSONExtractString(${text}, 'mode'), '/', JSONExtractString(${text}, 'meter'), '/', JSONExtractRaw(${text}, 'version'), JSONExtractRaw(${text}, 'offset'))`;
  return `
WITH cut AS (${cutSql(cut)}),
controls AS (
  SELECT k.logPartition AS logPartition, k.logOffset AS logOffset, k.kind AS kind, k.body AS body, k.bookedAt AS bookedAt
  FROM control_records AS k INNER JOIN cut AS c ON c.logPartition = k.logPartition
  WHERE k.stream = ${streamId} AND k.logOffset < c.nextOffset),
raw AS (
  SELECT r.logPartition AS logPartition, r.logOffset AS logOffset, r.reason AS kind, r.payload AS body,
    toString(r.status) AS status, r.bookedAt AS bookedAt
  FROM ${rawSql(cut)}
    AND (r.status = 'control' OR (r.status = 'counted' AND r.reason = 'replace'))
    AND r.reason IN ('meter.activate', 'meter.end', 'void', 'replace', 'stream.close'))
SELECT k.logPartition AS logPartition, k.logOffset AS logOffset, k.kind AS kind, 'in control_records, not so in raw_events' AS fault
FROM controls AS k LEFT JOIN raw AS r ON r.logPartition = k.logPartition AND r.logOffset = k.logOffset
WHERE (r.kind != k.kind OR r.bookedAt != k.bookedAt OR (r.status = 'control' AND r.body != k.body))
  AND k.bookedAt >= toDateTime(${cut.keptFrom}, 'UTC')
UNION ALL
SELECT r.logPartition AS logPartition, r.logOffset AS logOffset, r.kind AS kind, 'in raw_events, not in control_records' AS fault
FROM raw AS r
WHERE if(r.status = 'counted',
    (r.logPartition, r.logOffset) NOT IN (SELECT logPartition, logOffset FROM controls),
    (r.logPartition, if(r.kind = 'replace', 'void', r.kind), ${subject("r.body")}) NOT IN (
      SELECT logPartition, if(kind = 'replace', 'void', kind), ${subject("body")} FROM controls)${own})`;
}
